"""``describe``: the same text as ``train`` would learn from, without torch and without an error for too little."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import adapterkit as ak
from adapterkit.data.advice import PASSES, PASSES_UNTESTED
from adapterkit.errors import UsageProblem
from adapterkit.recipe import load
from adapterkit.recipe.schema import Recipe
from adapterkit.training.events import Event, Said


def test_a_file_is_described(text_file: Path, tiny_base: Path) -> None:
    told = ak.describe(text_file, base=str(tiny_base))
    assert isinstance(told, ak.DataReport)
    assert (told.documents.kept, told.document, told.refused) == (120, "line", None)


def test_describing_leaves_torch_out(text_file: Path, tiny_base: Path) -> None:
    code = "import sys, adapterkit as ak; ak.describe(sys.argv[1], base=sys.argv[2]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(text_file), str(tiny_base)], check=True, timeout=60)


def test_what_is_described_is_what_training_prepares(
    text_file: Path, tiny_base: Path, registry: ak.Registry
) -> None:
    from adapterkit.training.plan import plan

    loaded = load.from_flags({"data.source": str(text_file), "base": str(tiny_base), "train.device": "cpu"})
    job = plan(loaded, name="tales", registry=registry)
    told = ak.describe(text_file, base=str(tiny_base))
    assert (told.tokens.learned, told.tokens.held_out, told.rows.rows) == (
        job.prepared.train_tokens, job.prepared.held_out_tokens, len(job.prepared.train)
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["path", "text", "list", "documents", "recipe"])
def test_a_source_is_what_train_takes(text_file: Path, tiny_base: Path, kind: str) -> None:
    lines = text_file.read_text().splitlines()
    source = {
        "path": text_file,
        "text": str(text_file),
        "list": [text_file],
        "documents": ak.Documents(lines),
        "recipe": Recipe.model_validate({"data": {"source": str(text_file)}}),
    }[kind]
    assert ak.describe(source, base=str(tiny_base)).documents.kept == 120


def test_a_recipe_keeps_its_own_base(text_file: Path, tiny_base: Path) -> None:
    recipe = Recipe.model_validate({"base": str(tiny_base), "data": {"source": str(text_file)}})
    assert ak.describe(recipe).rows.length == 64


def test_keys_are_those_of_train(text_file: Path, tiny_base: Path) -> None:
    told = ak.describe(text_file, base=str(tiny_base), document="file", max_length=32)
    assert (told.documents.kept, told.rows.length) == (1, 32)


def test_an_unknown_key_names_the_verb_and_the_nearest(text_file: Path) -> None:
    with pytest.raises(UsageProblem, match=r"describe\(\) has no key 'max_lenght'") as caught:
        ak.describe(text_file, max_lenght=32)
    assert caught.value.hint == "did you mean max_length?"


def test_too_little_text_is_described_with_what_training_would_say(tmp_path: Path, tiny_base: Path) -> None:
    path = tmp_path / "poem.txt"
    path.write_text("The sea is calm tonight. The tide is full.\n" * 10)
    told = ak.describe(path, base=str(tiny_base))
    with pytest.raises(ak.DataError) as caught:
        ak.train(path, base=str(tiny_base), registry=tmp_path / "adapters", device="cpu")
    assert told.refused == caught.value.message
    assert told.words == 90


def test_what_is_read_is_told(text_file: Path, tiny_base: Path) -> None:
    events: list[Event] = []
    ak.describe(text_file, base=str(tiny_base), on_event=events.append)
    assert any(isinstance(e, Said) and e.text.startswith("Reading ") for e in events)


def test_the_row_is_as_long_as_in_training(tiny_base: Path, text_file: Path) -> None:
    assert ak.describe(text_file, base=str(tiny_base), max_length=16).rows.length == 16
    with pytest.raises(ak.RecipeError, match=r"'train\.max_length' is 65; the base tiny sees 64"):
        ak.describe(text_file, base=str(tiny_base), max_length=65)


def test_the_advised_passes_are_no_more_than_auto_makes() -> None:
    from adapterkit.training import resolve

    assert (PASSES, PASSES_UNTESTED) == (resolve.PASSES, resolve.PASSES_UNTESTED)


def test_weights_are_not_needed(text_file: Path, tiny_base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (bare / name).write_bytes((tiny_base / name).read_bytes())
    assert ak.describe(text_file, base=str(bare)).documents.kept == 120


def test_the_report_lies_in_every_version(text_file: Path, tiny_base: Path, tmp_path: Path) -> None:
    import json

    version = ak.train(
        text_file, base=str(tiny_base), registry=tmp_path / "adapters", device="cpu", epochs=1,
        tokens_per_step=512, max_new_tokens=4,
    )  # fmt: skip
    told = json.loads((version.path / "private" / "data.json").read_text())
    expected = ak.describe(text_file, base=str(tiny_base)).as_dict()
    assert told == json.loads(json.dumps(expected))
