"""The schema as a flat list of keys: path, kind, limits, help, flag.

Everything a person reads about a key comes from here, so the flag, the docs
and the error can't disagree.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from adapterkit.recipe.schema import Recipe

KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


# Keys of ``data`` whose flags drop their group too, as people type them often.
SHORT = frozenset(
    f"data.{name}" for name in ("document", "validation", "reflow", "skip_unreadable", "allow_bad_rows")
)


@dataclass(frozen=True)
class Key:
    """One key of a recipe, e.g. ``lora.r``."""

    path: str
    default: Any
    help: str
    choices: tuple[str, ...]  # literal words allowed, e.g. ("auto",)
    kinds: tuple[type, ...]  # plain types allowed beside them; list stands for a list of texts
    limits: tuple[str, ...]  # "at least 1", "at most 256"

    @property
    def flag(self) -> str:
        """``--lora-r``; the keys of ``train`` and ``sample`` drop their group: ``--epochs``."""
        group, _, name = self.path.rpartition(".")
        shown = name if group in ("", "train", "sample") else f"{group}-{name}"
        if self.path in SHORT:
            shown = name
        return "--" + shown.replace("_", "-").replace(".", "-")

    @property
    def allowed(self) -> str:
        """In words, what a value may be: ``a whole number, at least 1, at most 256``."""
        ways = [
            ", ".join((KINDS.get(k, "a list of texts"), *(self.limits if k in (int, float) else ())))
            for k in self.kinds
        ]
        if self.choices:
            ways.append(" or ".join([", ".join(self.choices[:-1]), self.choices[-1]]).removeprefix(" or "))
        return ", or ".join(ways)


@cache
def keys() -> dict[str, Key]:
    """Every key by its path, in the order of the schema."""
    return {k.path: k for k in _walk(Recipe, "")}


def by_flag() -> dict[str, Key]:
    return {k.flag: k for k in keys().values()}


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, f"{prefix}{name}.")
        else:
            yield _key(f"{prefix}{name}", field)


def _key(path: str, field: FieldInfo) -> Key:
    choices: list[str] = []
    kinds: list[type] = []
    marks: list[Any] = list(field.metadata)
    for option in _options(field.annotation):
        if get_origin(option) is Annotated:
            option, *rest = get_args(option)
            for mark in rest:
                marks += mark.metadata if isinstance(mark, FieldInfo) else [mark]
        if get_origin(option) is Literal:
            choices += get_args(option)
        elif option is type(None):
            choices.append("null")
        else:
            kinds.append(list if get_origin(option) is list else option)
    default = field.get_default(call_default_factory=True)
    return Key(path, default, field.description or "", tuple(choices), tuple(kinds), tuple(_limits(marks)))


def _options(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _limits(marks: list[Any]) -> Iterator[str]:
    for mark in marks:
        if isinstance(mark, Ge):
            yield f"at least {mark.ge:g}" if isinstance(mark.ge, float) else f"at least {mark.ge}"
        elif isinstance(mark, Gt):
            yield f"above {mark.gt:g}"
        elif isinstance(mark, Le):
            yield f"at most {mark.le:g}" if isinstance(mark.le, float) else f"at most {mark.le}"
        elif isinstance(mark, Lt):
            yield f"below {mark.lt:g}"
