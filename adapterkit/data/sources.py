"""Reading text: files, folders, globs, tables, Hub datasets, memory.

Everything becomes ``Text`` records in a fixed order. What can't be read is
named and counted, never passed over in silence.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec
from adapterkit.recipe.source import HUB_ID, no_such_text

PLAIN = frozenset({".txt", ".text", ".md", ""})
TABLES = frozenset({".jsonl", ".json", ".csv", ".tsv", ".parquet"})
TEXT_COLUMNS = ("text", "content", "story", "body")
NUMBER = re.compile(r"[-+]?[\d.,]*%?")  # a CSV has text only; also an empty cell


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
    files: int = 0
    without_text: int = 0  # rows whose text is missing


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
        texts = [Text(f"{memory.name}[{i}]", t, is_row=True) for i, t in enumerate(memory.texts)]
        return Read(texts, files=1)
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
    if whole.without_text:
        whole.said.append(f"left out: {whole.without_text:,} rows without text")
    return whole


def _add(whole: Read, part: Read) -> None:
    whole.texts += part.texts
    whole.said += part.said
    whole.unreadable += part.unreadable
    whole.revision = part.revision or whole.revision
    whole.files += part.files
    whole.without_text += part.without_text


def _read_one(source: str, spec: DataSpec, folder: Path | None) -> Read:
    paths = _paths(source, folder)
    if not paths:
        if source.startswith("hub:") or (HUB_ID.fullmatch(source) and not Path(source).suffix):
            from adapterkit.data.hub import read_hub  # datasets loads only for the Hub

            rows, revision, said = read_hub(source.removeprefix("hub:"), spec)
            result = Read(said=said, revision=revision, files=1)
            _rows(rows, source, spec, result)
            return result
        raise no_such_text(source)
    result = Read()
    root = _root(paths)
    for path in paths:
        _read_file(path, path.relative_to(root).as_posix(), spec, result, alone=len(paths) == 1)
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
            if not any(path.iterdir()):
                raise DataError(
                    f"there is nothing to read in {source}: it is empty.", hint="put text files into it"
                )
            return sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
        if path.is_file():
            return [path]
        if hits := sorted(glob.glob(str(path), recursive=True)):
            return [Path(h) for h in hits if Path(h).is_file()]
    return []


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _root(paths: list[Path]) -> Path:
    """The folder all paths are in; below it names are unique, and say nothing of this machine."""
    return Path(os.path.commonpath([p.parent for p in paths]))


def _read_file(path: Path, name: str, spec: DataSpec, result: Read, *, alone: bool) -> None:
    suffix = path.suffix.lower()
    if suffix in TABLES:
        result.files += 1
        _rows(_table(path, suffix), name, spec, result)
        return
    raw = path.read_bytes()
    if (suffix not in PLAIN and not alone) or path.name.startswith("~$"):
        result.unreadable.append(name)
        return
    text, how = decode(raw, path)
    if how:
        result.said.append(f"{name} was read as {how}")
    result.files += 1
    result.texts.append(Text(name, text))


def decode(raw: bytes, path: Path) -> tuple[str, str]:
    """Text of a file and how it was read, if not plainly as UTF-8."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _utf16(raw, path), "UTF-16"
    if b"\0" in raw[:8192] or raw[:5] in (b"%PDF-", b"{\\rtf"):
        raise DataError(f"{path} is not text: it holds binary data.", hint="save it as .txt in UTF-8")
    try:
        return _lines(raw.decode("utf-8-sig")), ""
    except UnicodeDecodeError:
        return _lines(raw.decode("cp1252", errors="replace")), "Windows-1252, as it is not UTF-8"


def _utf16(raw: bytes, path: Path) -> str:
    try:
        return _lines(raw.decode("utf-16"))
    except UnicodeDecodeError as e:
        raise DataError(f"{path} is UTF-16, but breaks off: {e.reason}.", hint="save it as UTF-8") from None


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


# --- tables -------------------------------------------------------------------


def _table(path: Path, suffix: str) -> Iterator[object]:
    if suffix == ".parquet":
        yield from _parquet(path)
        return
    text, _ = decode(path.read_bytes(), path)
    if suffix == ".jsonl":
        yield from _json_lines(text, path)
    elif suffix == ".json":
        yield from _json(text, path)
    else:
        csv.field_size_limit(1 << 30)  # a cell may be a novel
        yield from csv.DictReader(io.StringIO(text), delimiter="\t" if suffix == ".tsv" else ",")


def _parquet(path: Path) -> list[object]:
    import pyarrow
    import pyarrow.parquet as parquet  # comes with datasets

    try:
        rows: list[object] = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as e:
        raise DataError(
            f"{path} is not a whole parquet file: {str(e).splitlines()[0]}", hint="copy it again"
        ) from None
    return rows


def _json(text: str, path: Path) -> list[object]:
    try:
        told = json.loads(text)
    except ValueError as e:
        line = getattr(e, "lineno", 1)
        raise DataError(f"{path} line {line} is not JSON: {e}.", hint="mend that line") from None
    return told if isinstance(told, list) else [told]


def _json_lines(text: str, path: Path) -> Iterator[object]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError as e:
            raise DataError(
                f"{path} line {number} is not JSON: {e}.", hint="mend or remove that line"
            ) from None


def _rows(rows: Iterable[object], name: str, spec: DataSpec, result: Read) -> None:
    """Add the text of each row; a row without one is counted."""
    column = None
    for index, row in enumerate(rows):
        if isinstance(row, str):
            result.texts.append(Text(f"{name}[{index}]", _lines(row), is_row=True))
            continue
        if not isinstance(row, dict):
            raise DataError(
                f"{name} row {index + 1} is {json.dumps(row)[:40]}, neither text nor a row with columns.",
                hint='rows are objects such as {"text": "..."}, or plain strings',
            )
        fields = {
            k: v for k, v in row.items() if k is not None
        }  # csv puts cells beyond the header under None
        column = column or _column(fields, name, spec)
        value = fields.get(column)
        if value is None:
            result.without_text += 1
        else:
            result.texts.append(Text(f"{name}[{index}]", _lines(str(value)), is_row=True))


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
            hint=f"--data-text {_likeliest(row)}",
            code="no-text-column",
            details={"columns": columns},
        )
    return found


def _likeliest(row: dict[str, object]) -> str:
    """The last column that is about as long as the longest without numbers: the answer, not the question or a score."""
    words = {c: len(v) for c, v in row.items() if isinstance(v, str) and not NUMBER.fullmatch(v.strip())}
    return [c for c, n in words.items() if 2 * n >= max(words.values())][-1] if words else list(row)[-1]
