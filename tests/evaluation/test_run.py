"""``evaluate``: which text, which base, which numbers, and what is kept."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import GPT2LMHeadModel

import adapterkit as ak
from adapterkit.cache import cache_folder
from adapterkit.errors import BaseMismatch, Damaged, DataError, NotFound, Unsupported, UsageProblem
from adapterkit.evaluation import places
from adapterkit.evaluation.events import Event, Said, Scoring
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry.store import Registry
from tests.conftest import SENTENCES
from tests.evaluation.conftest import QUICK, write_text
from tests.make import make_base


@pytest.fixture
def score(here: Registry, tiny_base: Path) -> Any:
    """evaluate() on the tiny base of the test."""

    def run(*adapters: Any, **keys: Any) -> Any:
        data = keys.pop("data", None)
        told = {"registry": here, "base": tiny_base, "device": "cpu"} | keys
        return ak.evaluate(adapters, data, **told)

    return run


# --- the numbers ---


@pytest.mark.parametrize("ref", ["tales@1", "tales@2", "songs", "whole"])
def test_the_own_text_gives_the_scores_of_training(ref: str, here: Registry, score: Any) -> None:
    """Found again, split again, scored again: the manifest's numbers, in fp32 there too."""
    (row,) = score(ref)
    told = here[ref].metrics
    assert row.held_out == told.held_out
    assert row.tokens == told.tokens
    assert (row.loss, row.base_loss) == (
        pytest.approx(told.loss, abs=1e-4),
        pytest.approx(told.base_loss, abs=1e-4),
    )
    assert row.gain == pytest.approx(-(told.gain or 0), abs=1e-4)


def test_other_text_has_the_loss_of_plain_transformers(here: Registry, score: Any, tiny_base: Path) -> None:
    """Documents one by one through PEFT, with perplexity a word and a byte from the text itself."""
    texts = [f"{a} {b}" for a in SENTENCES for b in SENTENCES[:2]]
    (row,) = score("songs", data=ak.Documents(texts))
    tokenizer = Tokenizer(tiny_base)
    model = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(tiny_base), here["songs"].path).eval()
    nll, n = 0.0, 0
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([[tokenizer.end, *tokenizer.encode(text), tokenizer.end]])
            nll += model(input_ids=ids, labels=ids, use_cache=False).loss.item() * (ids.shape[1] - 1)
            n += ids.shape[1] - 1
    size, count = sum(len(t.encode()) for t in texts), sum(len(t.split()) for t in texts)
    assert (row.tokens, row.words, row.bytes) == (n, count, size)
    assert row.loss == pytest.approx(nll / n, abs=1e-5)
    assert row.word_perplexity == pytest.approx(math.exp(nll / count), rel=1e-4)
    assert row.byte_perplexity == pytest.approx(math.exp(nll / size), rel=1e-4)
    assert row.bits_per_byte == pytest.approx(nll / size / math.log(2), rel=1e-4)


def test_the_batch_size_changes_no_number(score: Any) -> None:
    one, eight = (score("tales@1", batch_size=b)[0] for b in (1, 8))
    assert one.loss == pytest.approx(eight.loss, abs=1e-5)


def test_each_row_has_its_base_and_the_base_is_scored_once(score: Any) -> None:
    seen: list[Event] = []
    table = score(
        "base", "tales@1", "tales@2", "tales@1=0.5", "tales@1=0.5,tales@2=0.5", on_event=seen.append
    )
    assert {row.base_loss for row in table} == {table[0].loss}
    assert table[0].gain == 0
    assert len({row.loss for row in table}) == 5
    assert [e.adapter for e in seen if isinstance(e, Scoring) and e.done == 0] == [
        "base", "tales@1", "tales@2", "tales@1=0.5", "tales@1=0.5,tales@2=0.5"
    ]  # fmt: skip
    assert table.is_one_text


def test_rows_stand_in_the_order_of_the_words(score: Any) -> None:
    table = score("whole", "songs", "tales")
    assert [row.adapter for row in table] == ["whole@1", "songs@1", "tales@2"]
    assert not table.is_one_text


def test_adapters_come_in_every_form(here: Registry, score: Any) -> None:
    text = write_text(Path("other.txt"), shift=2)
    table = score(
        None, here["tales@1"], {"tales@1": 1.0}, "tales@1", f"tales@{here['tales@1'].digest[:8]}", data=text
    )
    assert table[0].digests == ()
    assert len({row.loss for row in table[1:]}) == 1


def test_adapters_of_two_bases_are_scored_on_their_own(made: Path, here: Registry, tmp_path: Path) -> None:
    """Both are found where they were used last, as nothing in a version says where."""
    other = make_base(tmp_path / "other", seed=9, layers=1)
    ak.train(Path("songs.txt"), name="else", registry=here, base=str(other), **QUICK)
    from adapterkit.model import base as bases

    bases.remember(bases.Base("tiny", here_base(made)))
    table = ak.evaluate(["else", "songs"], registry=here, device="cpu")
    assert [row.base for row in table] == ["other", "tiny"]
    assert table[0].base_loss != table[1].base_loss


def here_base(made: Path) -> Path:
    """Where the tiny base was when the registry was made."""
    return Path(next((made / "cache" / "bases").iterdir()).read_text())


# --- which text ---


def test_a_text_that_is_gone_is_an_error_with_the_remedy(score: Any) -> None:
    Path("songs.txt").unlink()
    with pytest.raises(DataError, match=r"songs@1 was tested on can't be found again.*songs.txt") as e:
        score("songs")
    assert "adapterkit evaluate songs@1 --data SOURCE" in e.value.hint


def test_a_text_that_has_changed_is_an_error(score: Any) -> None:
    write_text(Path("songs.txt"), shift=3)
    with pytest.raises(DataError, match=r"songs.txt has changed since songs@1 was trained"):
        score("songs")


def test_a_place_that_was_noted_is_looked_up_first(here: Registry, score: Any, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    shutil.move("songs.txt", away / "songs.txt")
    version = here["songs"]
    spec = version.recipe.data.model_copy(update={"source": "songs.txt"})
    places.remember(version.metrics.held_out or "", spec, away)
    assert score("songs")[0].held_out == version.metrics.held_out


@pytest.mark.parametrize("given", ["books", "books/*.txt", "books/1.txt"])
def test_a_folder_a_glob_and_a_list_are_found_from_anywhere(
    given: str, here: Registry, score: Any, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the note alone: the version itself tells only names."""
    Path("books").mkdir()
    for i in range(3):
        write_text(Path(f"books/{i}.txt"), shift=i)
    source: Any = Path(given).absolute() if given != "books/1.txt" else [given, "books/2.txt"]
    v = ak.train(source, name="shelf", registry=here, base=str(tiny_base), document="line", **QUICK)
    spec = v.recipe.data.model_copy(update={"source": str(source) if given != "books/1.txt" else source})
    places.remember(v.metrics.held_out or "", spec, None)
    monkeypatch.chdir(tmp_path / "home")
    assert score("shelf")[0].held_out == v.metrics.held_out


def test_a_note_that_is_torn_is_passed_over(here: Registry, score: Any) -> None:
    note = cache_folder() / "places" / f"{here['songs'].metrics.held_out}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text('{"source": [')
    assert len(score("songs")) == 1


def test_a_source_beside_the_recipes_is_found(score: Any) -> None:
    Path("configs").mkdir()
    shutil.move("songs.txt", "configs/songs.txt")
    assert len(score("songs")) == 1


def test_a_version_without_a_test_needs_other_text(here: Registry, score: Any, tiny_base: Path) -> None:
    ak.train(Path("songs.txt"), name="raw", registry=here, base=str(tiny_base), validation="none", **QUICK)
    with pytest.raises(DataError, match="raw@1 kept no text out of training"):
        score("raw")
    assert score("raw", data="tales.txt")[0].tokens > 3000


def test_text_from_memory_is_not_kept(here: Registry, score: Any, tiny_base: Path) -> None:
    texts = ak.Documents(Path("songs.txt").read_text().splitlines())
    ak.train(texts, name="held", registry=here, base=str(tiny_base), **QUICK)
    with pytest.raises(DataError, match="came from a program or a pipe"):
        score("held")


def test_a_file_to_test_on_is_found_again(here: Registry, score: Any, tiny_base: Path) -> None:
    write_text(Path("test.txt"), shift=2, count=30)
    v = ak.train(
        Path("songs.txt"), name="parted", registry=here, base=str(tiny_base), validation="test.txt", **QUICK
    )
    (row,) = score("parted")
    assert (row.held_out, row.text) == (v.metrics.held_out, "documents of test.txt")


def test_all_of_another_text_is_scored(score: Any) -> None:
    (row,) = score("songs", data=write_text(Path("other.txt"), shift=2))
    lines = Path("other.txt").read_text().splitlines()
    assert row.words == sum(len(line.split()) for line in lines)
    assert row.bytes == sum(len(line.encode()) for line in lines)


def test_another_text_is_read_as_the_keys_say(score: Any) -> None:
    Path("rows.csv").write_text("id,body\n" + "".join(f'{i},"{s}"\n' for i, s in enumerate(SENTENCES)))
    (row,) = score("songs", data="rows.csv", data_text="body")
    assert row.words == sum(len(s.split()) for s in SENTENCES)


def test_text_that_was_learned_from_is_said_to_be_no_test(score: Any) -> None:
    seen: list[Event] = []
    score("songs", "tales@1=0.5,songs=0.5", data="songs.txt", on_event=seen.append)
    said = [e.text for e in seen if isinstance(e, Said) and "has seen" in e.text]
    assert [text[:40] for text in said] == ["songs@1 has seen 120 of the 120 documents"[:40]] * 2
    score("songs", data=write_text(Path("other.txt"), shift=2), on_event=(others := []).append)
    assert [e for e in others if isinstance(e, Said) and "has seen" in e.text] == []


def test_next_to_no_text_is_refused(score: Any) -> None:
    Path("few.txt").write_text("The lamp was lit.\n")
    with pytest.raises(DataError, match=r"few.txt has 4 words; a score needs at least 50"):
        score("songs", data="few.txt")


def test_a_blend_or_base_takes_the_one_text_of_the_others(score: Any) -> None:
    with pytest.raises(UsageProblem, match="the base has no text of its own") as e:
        score("base", "songs", "tales")
    assert "--data SOURCE" in e.value.hint
    with pytest.raises(UsageProblem, match="have different texts"):
        score("songs=0.5,tales=0.5")
    with pytest.raises(UsageProblem, match="the base has no text of its own"):
        score(None)


def test_words_that_are_no_keys_are_refused(score: Any) -> None:
    with pytest.raises(UsageProblem, match="no key 'docment'") as e:
        score("songs", data="songs.txt", docment="line")
    assert "document" in e.value.hint
    with pytest.raises(UsageProblem, match="no text was given"):
        score("songs", document="line")


# --- what is refused ---


def test_a_name_that_is_not_there_is_not_found(score: Any) -> None:
    with pytest.raises(NotFound, match="songz") as e:
        score("songz")
    assert "songs" in e.value.hint


def test_another_base_is_refused(score: Any, tmp_path: Path) -> None:
    with pytest.raises(BaseMismatch, match="songs@1 was trained on tiny"):
        score("songs", base=make_base(tmp_path / "other", seed=4))


def test_a_damaged_version_is_not_scored(here: Registry, score: Any) -> None:
    path = here["songs"].path / "adapter_model.safetensors"
    path.chmod(0o644)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Damaged, match="songs@1 is damaged"):
        score("songs")


def test_a_full_fine_tune_is_not_blended(score: Any) -> None:
    with pytest.raises(Unsupported, match="whole@1 is a full fine-tune"):
        score("whole=0.5,songs=0.5")


def test_no_adapter_is_wrong_usage(score: Any) -> None:
    with pytest.raises(UsageProblem, match="no adapter was named"):
        score()


# --- what is kept ---


def lines(registry: Registry, name: str) -> list[dict[str, Any]]:
    path = registry.path / name / "evaluations.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_scores_of_versions_are_kept_and_those_of_blends_are_not(
    here: Registry, score: Any, tiny_base: Path
) -> None:
    table = score("base", "tales@1", "tales@2=0.5", "whole", "tales@1=0.5,songs=0.5", data="songs.txt")
    (line,) = lines(here, "tales")
    assert (line["digest"], line["loss"], line["tokens"]) == (
        here["tales@1"].digest,
        table[1].loss,
        table[1].tokens,
    )
    assert (line["held_out"], line["precision"]) == (table[1].held_out, "fp32")
    assert {"base": line["base"], "tokenizer": line["tokenizer"]} == {
        k: here["tales@1"].manifest["base"][w] for k, w in (("base", "weights"), ("tokenizer", "tokenizer"))
    }
    assert len(lines(here, "whole")) == 1
    assert lines(here, "songs") == []


def test_the_same_evaluation_again_adds_nothing(here: Registry, score: Any) -> None:
    for _ in range(2):
        score("songs")
    assert len(lines(here, "songs")) == 1


def test_best_knows_what_was_evaluated(here: Registry, score: Any, tiny_base: Path) -> None:
    """tales@3 is tested on a file; the best of before was scored on it too when it was published."""
    write_text(Path("test.txt"), shift=2, count=30)
    common = QUICK | {"learning_rate": 1e-6}
    ak.train(
        Path("tales.txt"), name="tales", registry=here, base=str(tiny_base), validation="test.txt", **common
    )
    assert here.best("tales").number != 3
    table = score("tales@1", "tales@2", "tales@3", data="test.txt", document="line")
    assert {row.held_out for row in table} == {here["tales@3"].metrics.held_out}
    assert here.best("tales").number == 1 + min(range(3), key=lambda i: table[i].loss) != 3


def test_a_registry_that_can_not_be_written_is_no_error(
    here: Registry, score: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterkit import files

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "append_line", refuse)
    seen: list[Event] = []
    assert len(score("songs", on_event=seen.append)) == 1
    assert "is not kept in the registry: Permission denied" in " ".join(getattr(e, "text", "") for e in seen)
