"""The card: front matter that the Hub reads, code that compiles, samples that are no markup, and what is unknown said."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from adapterkit.model.hub import ALIASES
from adapterkit.registry import card as cards
from adapterkit.registry.card import again, card
from adapterkit.registry.version import Metrics, Sample
from tests.versions import FINGERPRINTS, manifest_of

TESTED = Metrics(
    loss=3.0, base_loss=3.5, perplexity=20.1, base_perplexity=33.1, tokens=380, stops=0.9, copied_words=6
)
SEA = Sample("The sea", " was\n<img src=x>\nhigh", "base")


def trained(metrics: Metrics = TESTED, **more: Any) -> dict[str, Any]:
    return manifest_of("noir", "lora", "gpt2", FINGERPRINTS, metrics) | more


def imported() -> dict[str, Any]:
    """What an adapter trained elsewhere is told by."""
    base = {"id": "tiny", "revision": None, "layers": 2, **FINGERPRINTS, "forced": True, "named": "gpt2"}
    return trained(
        Metrics(),
        base=base,
        data=None,
        recipe={"base": "tiny", "method": "lora", "lora": {"r": 4}},
        lineage={"how": "import", "parents": []},
        imported={"from": "bob/tales", "revision": "ab" * 20, "sha256": "cd" * 32},
    )


def halved() -> dict[str, Any]:
    parents = {"how": "half", "parents": ["ef" * 32]}
    told = {"of": "noir@1", "difference": 0.000204, "largest": 0.00031}
    return trained() | {"name": "noir-half", "lineage": parents, "half": told}


KINDS = {
    "trained": trained(),
    "untested": trained(Metrics()),
    "imported": imported(),
    "half": halved(),
    "full": manifest_of("sea", "full", "gpt2", FINGERPRINTS, TESTED),
    "embedded": manifest_of("noir", "lora", "embedded", FINGERPRINTS, TESTED),
}


def front(text: str) -> dict[str, Any]:
    told = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(told, dict)
    return told


def table(text: str, title: str) -> list[list[str]]:
    """Cells of the table in a section."""
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_hubs_own_reader_takes_it(kind: str) -> None:
    told = ModelCard(card(KINDS[kind], [SEA])).data.to_dict()
    assert told["library_name"] == ("transformers" if kind == "full" else "peft")
    assert told["pipeline_tag"] == "text-generation"
    assert "language" not in told


@pytest.mark.parametrize("kind", list(KINDS))
def test_its_code_compiles(kind: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", card(KINDS[kind], [SEA]), re.S)
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "README.md", "exec")


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_card_says_limits_and_risks(kind: str) -> None:
    text = card(KINDS[kind], [])
    assert [title for title in ("Recipe", "Scores", "Load it", "Intended use and limits", "Risks of generated text", "Where it comes from") if f"## {title}\n" not in text] == []  # fmt: skip


def test_a_base_on_the_hub_is_named_by_its_id() -> None:
    told = front(card(trained(), []))
    assert (told["base_model"], told["base_model_relation"]) == ("openai-community/gpt2", "adapter")


def test_a_base_in_a_folder_is_not_taken_for_a_model_on_the_hub() -> None:
    assert "base_model" not in front(card(imported(), []))
    assert "base_model" not in front(card(KINDS["embedded"], []))


def test_the_full_ids_are_those_of_the_download() -> None:
    assert cards.HUB == ALIASES


def test_a_full_fine_tune_is_said_to_be_one() -> None:
    text = card(KINDS["full"], [])
    assert front(text)["base_model_relation"] == "finetune"
    assert "A full fine-tune of `gpt2`" in text


def test_a_licence_is_told_only_where_it_is_known() -> None:
    known = trained()
    known["data"] = known["data"] | {"licence": "mit"}
    assert front(card(known, []))["license"] == "mit"
    assert "license" not in front(card(trained(), []))
    assert "- Licence of the text: not recorded" in card(trained(), [])


def test_the_pair_and_the_gain_stand_in_one_row() -> None:
    rows = table(card(trained(), []), "Scores")
    assert rows[0] == ["", "`gpt2`", "this", "change"]
    assert rows[2] == ["perplexity on 380 tokens of unseen text", "33.1", "20.1", "−39 %"]
    assert {len(row) for row in rows} == {4}


def test_what_was_not_measured_is_unknown() -> None:
    text = card(trained(Metrics()), [])
    assert table(text, "Scores") == []
    assert "## Scores\n\nUnknown: nothing was measured.\n" in text


def test_the_recipe_is_a_table() -> None:
    rows = dict(table(card(trained(), []), "Recipe")[2:])
    assert rows["`lora.targets`"] == "attn.c_attn, attn.c_proj"
    assert rows["`train.learning_rate`"] == "0.0002"
    assert rows["`train.tokens_per_step`"] == "1,024"


def test_what_an_import_lacks_is_said_to_be_unknown() -> None:
    text = card(imported(), [])
    assert "- Text: unknown" in text
    assert "How it was trained is unknown." in text
    assert "Brought in from `bob/tales`, revision `abab" in text
    assert "made for `gpt2` and brought in for this base on the user's word" in text


def test_a_half_says_what_it_is_a_half_of() -> None:
    text = card(halved(), [])
    assert "# noir-half\n\nA copy in fp16 of the LoRA adapter `noir@1`" in text
    assert "fp16 changed the update by 0.0002 of its size (largest in one module: 0.00031)." in text
    assert "Measured on `noir@1`, in full precision." in text
    assert f"- From the version with the digest `{'ef' * 32}`" in text


def test_a_sample_keeps_its_lines_and_is_no_markup() -> None:
    told = card(trained(), [SEA])
    assert "> **The sea** was  \n> &lt;img src=x&gt;  \n> high\n" in told


def test_a_sample_without_a_prompt_has_nothing_in_bold() -> None:
    assert "\n> Once\n" in card(trained(), [Sample("", "\nOnce")])


def test_without_samples_there_is_no_heading_for_them() -> None:
    assert "Samples" not in card(trained(), [])


def test_a_copy_under_another_name_keeps_the_samples() -> None:
    before = card(trained(), [SEA, Sample("Rain", " fell\n\n## on\nus")])
    after = again(trained() | {"name": "dark"}, before)
    assert after == card(trained() | {"name": "dark"}, [SEA, Sample("Rain", " fell\n\n## on\nus")])


def test_a_name_in_the_manifest_is_no_markup() -> None:
    hostile = trained()
    hostile["data"] = hostile["data"] | {"source": "`a`](x) <b>\n# big"}
    text = card(hostile, [])
    assert "\n# big" not in text
    assert "`'a'](x) <b> # big`" in text


def test_every_metric_that_a_manifest_has_is_understood() -> None:
    assert card(trained(Metrics(**asdict(TESTED))), []) == card(trained(), [])
