"""What is asked of one request: log-probabilities, a time, what becomes of a long text."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterkit.registry.store import Registry
from tests.make import make_peft_adapter

Cli = Callable[..., tuple[int, str, str]]
SHORT = ["--max-new-tokens", "4", "--seed", "3"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    registry = Registry(tmp_path / "adapters")
    folder = make_peft_adapter(tmp_path / "noir", tiny_base, seed=1, targets=["attn.c_attn"])
    registry.add(folder, name="noir", base=str(tiny_base), force_base=True)
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(registry.path))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    return registry


def _written(out: str) -> dict[str, object]:
    (completion,) = json.loads(out)["completions"]
    return dict(completion)


def test_logprobs_are_in_the_json_a_token_each(cli: Cli) -> None:
    code, out, _ = cli("generate", "noir", "The lamp", "--json", "--logprobs", "2", *SHORT)
    told = _written(out)
    assert (code, len(told["logprobs"])) == (0, told["usage"]["new_tokens"])
    assert [sorted(t) for t in told["logprobs"]] == [["id", "logprob", "text", "top"]] * len(told["logprobs"])
    assert all(len(t["top"]) == 2 and t["logprob"] < 0 for t in told["logprobs"])


def test_without_being_asked_for_there_are_none(cli: Cli) -> None:
    assert _written(cli("generate", "noir", "The", "--json", *SHORT)[1])["logprobs"] is None


def test_echo_scores_the_prompt_too(cli: Cli) -> None:
    told = _written(cli("generate", "noir", "The lamp", "--json", "--echo", "--logprobs", "0", *SHORT)[1])
    usage = told["usage"]
    assert len(told["logprobs"]) == usage["prompt_tokens"] + usage["new_tokens"]
    assert (told["logprobs"][0]["text"], told["logprobs"][0]["logprob"]) == ("<|endoftext|>", None)


def test_logprobs_of_a_plain_text_name_the_json(cli: Cli) -> None:
    code, _, err = cli("generate", "noir", "The", "--logprobs", "2")
    assert (code, "--logprobs are told in JSON" in err, "--json" in err) == (2, True, True)


def test_a_file_of_prompts_has_them_a_line_each_and_a_line_may_ask_for_its_own(cli: Cli) -> None:
    jobs = [{"prompt": "The"}, {"prompt": "The lamp", "logprobs": 3, "echo": True}]
    Path("p.jsonl").write_text("".join(json.dumps(j) + "\n" for j in jobs))
    code, _, _ = cli(
        "generate", "noir", "--prompts", "p.jsonl", "--out", "t.jsonl", "--logprobs", "1", *SHORT
    )
    told = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    assert (code, [len(t["logprobs"][-1]["top"]) for t in told]) == (0, [1, 3])
    assert [t["logprobs"][0]["logprob"] is None for t in told] == [False, True]


def test_at_the_end_of_its_time_a_text_is_what_there_is(cli: Cli) -> None:
    code, out, err = cli("generate", "noir", "The", "--timeout", "1e-9", *SHORT)
    assert (code, out, ", time was up" in err) == (0, "\n", True)
    assert (
        _written(cli("generate", "noir", "The", "--timeout", "1e-9", "--json")[1])["finish_reason"]
        == "timeout"
    )


def test_a_time_that_is_none_is_refused(cli: Cli) -> None:
    code, _, err = cli("generate", "noir", "The", "--timeout", "-1")
    assert (code, "must be a number of seconds above 0" in err) == (2, True)


def _chat(cli: Cli, monkeypatch: pytest.MonkeyPatch, typed: str, *argv: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    return cli("chat", "noir", "--max-new-tokens", "4", *argv)


@pytest.mark.parametrize(("argv", "is_refused"), [((), False), (("--overflow", "left"), False), (("--overflow", "error"), True)])  # fmt: skip
def test_a_chat_slides_unless_a_long_text_is_to_be_an_error(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], is_refused: bool
) -> None:
    code, _, err = _chat(cli, monkeypatch, "lamp " * 80 + "\n", *argv)
    assert code == 0
    assert ("words are no longer seen" in err) is not is_refused
    assert ("this base sees 64" in err) is is_refused


def test_what_a_chat_saves_has_each_passage_and_what_was_said(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = "The lamp\n/use base\nRain\nmore\n/undo\n/save t.txt\n/save u.json\n"
    _, out, _ = _chat(cli, monkeypatch, typed)
    assert " saved t.txt, and t.json with adapter, seed and settings of each passage" in out
    assert " saved u.json with adapter, seed and settings of each passage" in out
    told = json.loads(Path("t.json").read_text(encoding="utf-8"))
    assert told == json.loads(Path("u.json").read_text(encoding="utf-8"))
    assert [(p["said"].strip(), p["adapter"]) for p in told["passages"]] == [
        ("The lamp", "noir@1"),
        ("Rain", "base"),
    ]
    assert told["text"] == Path("t.txt").read_text(encoding="utf-8")
