"""Every text of ADAPTERKIT_DATA goes in with no option but its path, and the report counts what is there."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from adapterkit.data.prepare import Prepared, prepare
from adapterkit.data.reflow import reflow
from adapterkit.data.report import report
from adapterkit.model.base import locate
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe.schema import DataSpec

pytestmark = pytest.mark.data
DATA = Path(os.environ.get("ADAPTERKIT_DATA", "nowhere"))
LINES = {"dadjokes/jokes.txt", "kjv/kjv.txt"}  # what auto must find; every other single text is one document
MISQUOTED = "prompts-csv/prompts.csv"  # three cells with bare quotes in them, which DictReader cuts short
NO_TEXT = {".json", ".safetensors"}  # configurations, vocabularies and weights


def _texts() -> list[str]:
    """Relative names of every file that holds text."""
    found = sorted(p for p in DATA.rglob("*") if p.is_file() and not p.name.startswith("PROVENANCE"))
    skipped = {"LICENSE", "merges.txt", "README.md"}
    return [
        p.relative_to(DATA).as_posix() for p in found if p.suffix not in NO_TEXT and p.name not in skipped
    ]


def _decoded(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _expected(name: str) -> list[str]:
    """The documents of a file, read by other means than ours."""
    path = DATA / name
    raw = path.read_bytes()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return [reflow(_decoded(archive.read(m)))[0] for m in archive.namelist() if not m.endswith("/")]
    if path.suffix == ".jsonl":
        return [_row(json.loads(line)) for line in raw.decode().splitlines() if line.strip()]
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        return [_row(r) for r in parquet.read_table(path).to_pylist()]
    if path.suffix == ".csv":
        return [r["prompt"] for r in csv.DictReader(io.StringIO(raw.decode(), newline=""))]
    text = _decoded(raw)
    if name == "dadjokes/jokes.txt":
        return ["\n".join(half.strip() for half in line.split("<>")) for line in text.split("\n")]
    return text.split("\n") if name in LINES else [reflow(text)[0]]


def _row(row: dict[str, str]) -> str:
    return f"{row['question']}\n{row['answer']}" if "question" in row else row.get("text") or row["prompt"]


@pytest.fixture(scope="module")
def embedded() -> Tokenizer:
    return Tokenizer(locate("embedded").folder)


@pytest.fixture(scope="module", params=_texts() if DATA.is_dir() else [])
def read(request: pytest.FixtureRequest, embedded: Tokenizer) -> tuple[str, Prepared]:
    name = request.param
    return name, prepare(DataSpec(source=str(DATA / name)), embedded, 512, strict=False)


def test_every_document_is_there_and_every_character(read: tuple[str, Prepared], embedded: Tokenizer) -> None:
    name, prepared = read
    told = report(prepared, embedded, 512).as_dict()
    expected = [t.strip() for t in _expected(name) if t.strip()]
    assert told["documents"]["kept"] == len(expected)
    if name == MISQUOTED:  # all cells but those three must be the same
        assert len(set(expected) - set(prepared.documents.texts())) == 3
    else:
        assert told["characters"] == sum(map(len, expected))


def test_every_token_is_learned_or_tested_on_or_only_read(
    read: tuple[str, Prepared], embedded: Tokenizer
) -> None:
    _, prepared = read
    told = report(prepared, embedded, 512).as_dict()
    whole = sum(len(ids) for ids in embedded.encode_batch(list(prepared.documents.texts())))
    kept = prepared.train_tokens + prepared.held_out_tokens
    only_read = sum(
        int(s[1] - s[0]) for i in range(len(prepared.documents)) for s in prepared.documents.context(i)
    )
    # a pair is encoded in two parts, which can add a token at the seam; each document adds its end
    assert kept + only_read - len(prepared.documents) == pytest.approx(whole, abs=2 * len(prepared.documents))
    assert prepared.held_out_tokens > 0
    assert told["documents"]["kept"] == len(prepared.documents)
