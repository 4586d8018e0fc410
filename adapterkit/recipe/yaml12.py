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
from yaml.reader import ReaderError

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


class CoreDumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as something else, and writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for tag, pattern in (("null", NULL), ("bool", BOOL), ("int", INT), ("float", FLOAT)):
    CoreDumper.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern.pattern})$"), None)


def dump(values: dict[str, Any]) -> str:
    """A mapping as a document that ``read`` reads back to the same."""
    text: str = yaml.dump(values, Dumper=CoreDumper, sort_keys=False, allow_unicode=True)
    return text


def scalar(text: str) -> Any:
    """The value of one flag or ``--set``: ``2e-4``, ``auto``, ``[attn.c_attn]``."""
    try:
        value = yaml.load(text, Loader=CoreLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    return text if isinstance(value, dict) else value


def read(text: str, where: str) -> tuple[dict[str, Any], Lines]:
    """The mapping of a document and the line of every key.

    Raises:
        RecipeError: not YAML, not a mapping, an anchor, or a key written twice.
    """
    try:
        _refuse_anchors(text, where)
        return _read(CoreLoader(text), where)
    except ReaderError as e:  # has a position in the text, but no mark
        line = text.count("\n", 0, e.position) + 1
        raise RecipeError(
            f"{where} line {line} is not YAML: it holds the control character U+{ord(text[e.position]):04X}.",
            hint="remove it, or save the recipe as plain UTF-8 text",
        ) from e
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        at = f" line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{at} is not YAML: {getattr(e, 'problem', e)}.", hint=_EXAMPLE) from e
    except (ValueError, RecursionError) as e:  # a number of 5,000 digits, a thousand brackets
        raise RecipeError(f"{where} is not a recipe: {e}.", hint=_EXAMPLE) from e


def _refuse_anchors(text: str, where: str) -> None:
    """An anchor can hold itself, and a page of them can mean gigabytes; no recipe needs one."""
    for event in yaml.parse(text, Loader=CoreLoader):
        if (anchor := getattr(event, "anchor", None)) and event.start_mark:
            mark = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise RecipeError(
                f"{where} line {event.start_mark.line + 1}: {mark}{anchor} is an anchor or alias of YAML, which recipes do not have.",
                hint=f"write the value out in place of {mark}{anchor}; a text that begins so goes between quotes",
            )


def _read(loader: CoreLoader, where: str) -> tuple[dict[str, Any], Lines]:
    try:
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError(f"{where} is not a recipe: it should hold 'key: value' lines.", hint=_EXAMPLE)
        lines: Lines = {}
        _mark(node, "", lines, where)
        return loader.construct_document(node), lines
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
