"""Reading text: files, folders, globs, tables, Hub datasets, memory.

Everything becomes ``Text`` records in a fixed order. What can't be read is
named and counted, never passed over in silence.
"""

from __future__ import annotations

import csv
import glob
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec
from adapterkit.recipe.source import HUB_ID, no_such_text

PLAIN = frozenset({".txt", ".text", ".md", ""})
TABLES = frozenset({".jsonl", ".json", ".csv", ".tsv", ".parquet"})
TEXT_COLUMNS = ("text", "content", "story", "body")


@dataclass(frozen=True)
class Text:
    """One file or one row, decoded."""

    name: str
    content: str
    is_row: bool = False


@dataclass
class Read:
    """What was read, and what a person should be told about it."""

    texts: list[Text] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    revision: str | None = None  # commit of a Hub dataset


class Documents:
    """Text from memory, one string a document: ``Documents(["one", "two"])``."""

    def __init__(self, texts: Iterable[str], *, name: str = "memory") -> None:
        self.texts = list(texts)
        self.name = name

    def __repr__(self) -> str:
        return f"Documents({len(self.texts)} texts, name={self.name!r})"


def read(spec: DataSpec, folder: Path | None = None, memory: Documents | None = None) -> Read:
    """Everything the recipe's ``data.source`` names.

    Args:
        spec: the ``data`` part of a recipe.
        folder: of the recipe file; relative sources are looked up there first.
        memory: texts that take the place of ``data.source``.
    """
    if memory is not None:
        return Read([Text(f"{memory.name}[{i}]", t, is_row=True) for i, t in enumerate(memory.texts)])
    sources = [spec.source] if isinstance(spec.source, str) else spec.source
    if not any(sources):
        raise DataError(
            "the recipe names no text.", hint="set data.source, or: adapterkit train FOLDER-OR-FILE"
        )
    whole = Read()
    for source in sources:
        _add(whole, _read_one(source, spec, folder))
    if whole.unreadable:
        shown = ", ".join(whole.unreadable[:4]) + (", ..." if len(whole.unreadable) > 4 else "")
        whole.said.append(f"left out: {shown} (not text)")
    return whole


def _add(whole: Read, part: Read) -> None:
    whole.texts += part.texts
    whole.said += part.said
    whole.unreadable += part.unreadable
    whole.revision = part.revision or whole.revision


def _read_one(source: str, spec: DataSpec, folder: Path | None) -> Read:
    paths = _paths(source, folder)
    if not paths:
        if source.startswith("hub:") or (HUB_ID.fullmatch(source) and not Path(source).suffix):
            from adapterkit.data.hub import read_hub  # datasets loads only for the Hub

            rows, revision, said = read_hub(source.removeprefix("hub:"), spec)
            return Read(list(_rows(rows, source, spec)), said, revision=revision)
        raise no_such_text(source)
    result = Read()
    for path in paths:
        _read_file(path, spec, result, alone=len(paths) == 1)
    if not result.texts:
        raise DataError(
            f"there is nothing to read in {source}: {', '.join(result.unreadable[:4]) or 'it is empty'}.",
            hint="text can be .txt .md .jsonl .json .csv .tsv .parquet",
        )
    return result


def _paths(source: str, folder: Path | None) -> list[Path]:
    candidates = [Path(source).expanduser()]
    if folder is not None and not candidates[0].is_absolute():
        candidates.insert(0, folder / source)
    for path in candidates:
        if path.is_dir():
            return sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
        if path.is_file():
            return [path]
        if hits := sorted(glob.glob(str(path), recursive=True)):
            return [Path(h) for h in hits if Path(h).is_file()]
    return []


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_file(path: Path, spec: DataSpec, result: Read, *, alone: bool) -> None:
    suffix = path.suffix.lower()
    if suffix in TABLES:
        result.texts += _rows(_table(path, suffix), path.name, spec)
        return
    raw = path.read_bytes()
    if (suffix not in PLAIN and not alone) or path.name.startswith("~$"):
        result.unreadable.append(path.name)
        return
    text, how = decode(raw, path)
    if how:
        result.said.append(f"{path.name} was read as {how}")
    result.texts.append(Text(path.name, text))


def decode(raw: bytes, path: Path) -> tuple[str, str]:
    """Text of a file and how it was read, if not plainly as UTF-8."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _lines(raw.decode("utf-16")), "UTF-16"
    if b"\0" in raw[:8192] or raw[:5] in (b"%PDF-", b"{\\rtf"):
        raise DataError(f"{path} is not text: it holds binary data.", hint="save it as .txt in UTF-8")
    try:
        return _lines(raw.decode("utf-8-sig")), ""
    except UnicodeDecodeError:
        return _lines(raw.decode("cp1252", errors="replace")), "Windows-1252, as it is not UTF-8"


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


# --- tables -------------------------------------------------------------------


def _table(path: Path, suffix: str) -> Iterator[dict[str, object]]:
    if suffix == ".parquet":
        import pyarrow.parquet as parquet  # comes with datasets

        yield from parquet.read_table(path).to_pylist()
        return
    text, _ = decode(path.read_bytes(), path)
    if suffix == ".jsonl":
        yield from _json_lines(text, path)
    elif suffix == ".json":
        loaded = json.loads(text)
        yield from loaded if isinstance(loaded, list) else [loaded]
    else:
        csv.field_size_limit(1 << 30)  # a cell may be a novel
        yield from csv.DictReader(io.StringIO(text), delimiter="\t" if suffix == ".tsv" else ",")


def _json_lines(text: str, path: Path) -> Iterator[dict[str, object]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError as e:
            raise DataError(
                f"{path} line {number} is not JSON: {e}.", hint="mend or remove that line"
            ) from None


def _rows(rows: Iterable[dict[str, object] | str], name: str, spec: DataSpec) -> Iterator[Text]:
    column = None
    for index, row in enumerate(rows):
        fields: dict[str, object] = {"text": row} if isinstance(row, str) else row
        if column is None:
            column = _column(fields, name, spec)
        value = fields.get(column)
        if value is not None:
            yield Text(f"{name}[{index}]", _lines(str(value)), is_row=True)


def _column(row: dict[str, object], name: str, spec: DataSpec) -> str:
    columns = list(row)
    wanted: Sequence[str] = (spec.text,) if spec.text else TEXT_COLUMNS
    found = next((c for c in wanted if c in columns), None)
    strings = [c for c in columns if isinstance(row[c], str)]
    if found is None and not spec.text and len(strings) == 1:
        found = strings[0]
    if found is None:
        raise DataError(
            f"{name} has no column {wanted[0]!r}. It has: {', '.join(columns)}.",
            hint=f"--data-text {strings[-1] if strings else columns[-1]}",
            code="no-text-column",
            details={"columns": columns},
        )
    return found
