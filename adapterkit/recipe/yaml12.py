"""YAML 1.2 core values with line numbers.

PyYAML reads YAML 1.1: ``2e-4`` is a string there and ``off`` is false. Its
resolvers are replaced by the core schema's (YAML 1.2.2, section 10.3.2), and
the nodes' marks give the line of every key. Never constructs anything but
plain values.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from adapterkit.errors import RecipeError

Lines = dict[str, int]  # "lora.r" -> 9


class CoreLoader(yaml.SafeLoader):
    """A SafeLoader whose plain scalars follow the YAML 1.2 core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML declares it so


INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
NULL = re.compile(r"~|null|Null|NULL|")

for tag, pattern in (("null", NULL), ("bool", BOOL), ("int", INT), ("float", FLOAT)):
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern.pattern})$"), None)


def _int(loader: CoreLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


CoreLoader.add_constructor("tag:yaml.org,2002:int", _int)


def scalar(text: str) -> Any:
    """The value of one flag or ``--set``: ``2e-4``, ``auto``, ``[attn.c_attn]``."""
    try:
        value = yaml.load(text, Loader=CoreLoader)
    except yaml.YAMLError:
        return text
    return text if isinstance(value, dict) else value


def read(text: str, where: str) -> tuple[dict[str, Any], Lines]:
    """The mapping of a document and the line of every key.

    Raises:
        RecipeError: not YAML, not a mapping, or a key written twice.
    """
    loader = CoreLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError(f"{where} is not a recipe: it should hold 'key: value' lines.", hint=_EXAMPLE)
        lines: Lines = {}
        _mark(node, "", lines, where)
        return loader.construct_document(node), lines
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line} is not YAML: {getattr(e, 'problem', e)}.", hint=_EXAMPLE) from e
    finally:
        loader.dispose()


def _mark(node: yaml.MappingNode, prefix: str, lines: Lines, where: str) -> None:
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        if path in lines:
            raise RecipeError(
                f"{where} line {key.start_mark.line + 1}: key {path!r} is there twice, first on line {lines[path]}.",
                hint="keep one of them",
            )
        lines[path] = key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            _mark(value, f"{path}.", lines, where)


_EXAMPLE = "every key with default and limits: adapterkit init --recipe example"
