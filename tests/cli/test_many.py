"""Texts for a file of prompts: in order, each as it is alone, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterkit.cli import many
from adapterkit.errors import DataError
from adapterkit.registry.store import Registry
from tests.make import make_peft_adapter

Cli = Callable[..., tuple[int, str, str]]
SHORT = ["--max-new-tokens", "8", "--seed", "3"]


@pytest.fixture
def here(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    registry = Registry(tmp_path / "adapters")
    for seed, name in enumerate(["noir", "shanty"]):
        folder = make_peft_adapter(tmp_path / name, tiny_base, seed=seed, targets=["attn.c_attn"])
        registry.add(folder, name=name, base=str(tiny_base), force_base=True)
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(registry.path))
    return registry


def test_a_line_a_prompt_gives_a_line_a_text_as_each_is_alone(cli: Cli, here: Registry) -> None:
    Path("p.txt").write_text("The lamp\n\nRain fell\n")
    code, out, _ = cli("generate", "noir", "--prompts", "p.txt", "--out", "t.jsonl", *SHORT)
    told = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    alone = [cli("generate", "noir", p, *SHORT)[1].rstrip("\n") for p in ("The lamp", "Rain fell")]
    assert (code, out) == (0, "2 texts in t.jsonl\n")
    assert [(t["prompt"], t["text"]) for t in told] == list(
        zip(("The lamp", "Rain fell"), alone, strict=True)
    )


def test_json_lines_may_name_an_adapter_and_settings_of_their_own(cli: Cli, here: Registry) -> None:
    jobs = [{"prompt": "The", "adapter": "shanty", "max_new_tokens": 3}, {"prompt": "The"}]
    Path("p.jsonl").write_text("".join(json.dumps(j) + "\n" for j in jobs))
    cli("generate", "noir", "--prompts", "p.jsonl", "--out", "t.jsonl", *SHORT)
    told = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    assert [(t["adapter"], t["sampling"]["max_new_tokens"]) for t in told] == [("shanty@1", 3), ("noir@1", 8)]


@pytest.mark.parametrize("line", ["{", "3", '{"text": "x"}', '{"prompt": 3}'])
def test_a_line_that_is_no_job_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n' + line + "\n")
    with pytest.raises(DataError, match="line 2 is no job"):
        many.read(tmp_path / "p.jsonl")


def test_a_file_that_is_there_is_not_overwritten(cli: Cli, here: Registry) -> None:
    Path("p.txt").write_text("The lamp\n")
    Path("t.jsonl").write_text("mine")
    code, _, err = cli("generate", "noir", "--prompts", "p.txt", "--out", "t.jsonl")
    assert (code, "is there already" in err, Path("t.jsonl").read_text()) == (2, True, "mine")


def test_an_error_on_the_way_leaves_no_file_of_that_name(cli: Cli, here: Registry) -> None:
    jobs = [{"prompt": "The"}, {"prompt": "The", "adapter": "nobody"}]
    Path("p.jsonl").write_text("".join(json.dumps(j) + "\n" for j in jobs))
    code, _, err = cli("generate", "noir", "--prompts", "p.jsonl", "--out", "t.jsonl", *SHORT)
    assert (code, "no adapter named 'nobody'" in err, Path("t.jsonl").exists()) == (1, True, False)


@pytest.mark.parametrize(
    "words", [["--prompts", "p.txt"], ["--out", "t.jsonl"], ["The", "--prompts", "p", "--out", "t"]]
)
def test_half_of_it_says_the_whole(cli: Cli, here: Registry, words: list[str]) -> None:
    code, _, err = cli("generate", "noir", *words)
    assert (code, "adapterkit generate noir --prompts prompts.txt --out texts.jsonl" in err) == (2, True)


def test_a_long_prompt_is_an_error_unless_its_beginning_may_go(cli: Cli, here: Registry) -> None:
    long = "The lamp was lit. " * 40
    code, _, err = cli("generate", "noir", long, *SHORT)
    assert (code, "--overflow left" in err) == (1, True)
    code, _, err = cli("generate", "noir", long, "--overflow", "left", *SHORT)
    assert (code, "tokens of the prompt were left out" in err) == (0, True)


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ({"temprature": 1}, "unknown sampling setting 'temprature'"),
        ({"temperature": 99}, "temperature is 99"),
        ({"seed": "x"}, "seed is 'x'; it must be a whole number"),
        ({"memory": [1, 2]}, "unknown sampling setting 'memory'"),
        ({"adapter": "nobody"}, "no adapter named 'nobody'"),
        ({"adapter": 3}, "3 is not an adapter"),
        ({"adapter": {"noir": "much"}}, "'much' in 'noir=much' is not a weight"),
    ],
)
def test_a_job_that_can_not_be_asked_for_is_named_before_anything_is_written(
    cli: Cli, here: Registry, monkeypatch: pytest.MonkeyPatch, job: dict[str, object], told: str
) -> None:
    monkeypatch.setattr(many, "write", lambda *_: pytest.fail("it was begun"))
    jobs = [{"prompt": "The"}, {"prompt": "The", **job}]
    Path("p.jsonl").write_text("\n".join(json.dumps(j) + "\n" for j in jobs))
    code, _, err = cli("generate", "noir", "--prompts", "p.jsonl", "--out", "t.jsonl", *SHORT)
    assert (code, f"p.jsonl line 3: {told}" in err) == (1, True), err


def test_a_job_may_have_a_blend_of_its_own(cli: Cli, here: Registry) -> None:
    Path("p.jsonl").write_text(json.dumps({"prompt": "The", "adapter": {"noir": 0.5, "shanty": 0.5}}) + "\n")
    cli("generate", "noir", "--prompts", "p.jsonl", "--out", "t.jsonl", *SHORT)
    assert json.loads(Path("t.jsonl").read_text())["adapter"] == "noir@1=0.5,shanty@1=0.5"


@pytest.mark.parametrize("words", [["-p", "The"], ["-n", "3"]])
def test_what_is_for_one_prompt_is_refused_beside_a_file_of_them(
    cli: Cli, here: Registry, words: list[str]
) -> None:
    Path("p.txt").write_text("The lamp\n")
    code, _, err = cli("generate", "noir", "--prompts", "p.txt", "--out", "t.jsonl", *words)
    assert (code, "-p and -n are for one prompt" in err, Path("t.jsonl").exists()) == (2, True, False)
