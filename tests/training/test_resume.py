"""Runs that are broken off anywhere and go on to the bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import adapterkit as ak
from adapterkit.errors import AdapterKitError, RecipeError
from adapterkit.registry import runs
from adapterkit.registry.store import Registry
from adapterkit.training import checkpoint, events, room, run
from adapterkit.training.events import Event
from adapterkit.training.run import finish, go_on
from adapterkit.training.stop import Interrupted
from tests.conftest import SENTENCES

# 9 steps, 3 a pass, a test after each pass, a checkpoint after every second step; dropout on, as by default
QUICK: dict[str, Any] = {
    "epochs": 3,
    "max_length": 64,
    "tokens_per_step": 2560,
    "learning_rate": 0.01,
    "max_new_tokens": 8,
    "batch_size": 8,
    "save_steps": 2,
    "log_steps": 2,
    "device": "cpu",
    "precision": "fp32",
}
WEIGHTS = "adapter_model.safetensors"


class Pulled(RuntimeError):
    """The plug."""


def pull(when: Callable[[Event], bool]) -> Callable[[Event], None]:
    """A listener that ends the process, as far as one in the same process can."""

    def hear(event: Event) -> None:
        if when(event):
            raise Pulled

    return hear


def at_step(step: int) -> Callable[[Event], bool]:
    return lambda e: isinstance(e, events.Stepped) and e.step >= step


@pytest.fixture
def learn(text_file: Path, tiny_base: Path) -> Callable[..., ak.Version]:
    def call(registry: Registry | Path, **more: Any) -> ak.Version:
        return ak.train(text_file, registry=registry, base=str(tiny_base), **QUICK | more)

    return call


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def whole(learn: Callable[..., ak.Version], kept: Path) -> ak.Version:
    """A run without a break, made once."""
    store = Registry(kept)
    return store["tales"] if store.versions("tales") else learn(store)


def bits(version: ak.Version) -> bytes:
    return (version.path / WEIGHTS).read_bytes()


def curve(version: ak.Version) -> list[Any]:
    return [replace(p, seconds=0.0) for p in version.history()]


# --- the same bits --------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4, 6, 7, 9])
def test_a_run_broken_off_goes_on_to_the_bits_of_one_that_was_not(
    learn: Callable[..., ak.Version], whole: ak.Version, registry: Registry, step: int
) -> None:
    with pytest.raises(Pulled):
        learn(registry, on_event=pull(at_step(step)))
    version = learn(registry)
    assert bits(version) == bits(whole)
    assert curve(version) == curve(whole)


@pytest.mark.parametrize("kind", [events.Tested, events.Sampled, events.Begun])
def test_so_it_does_when_it_was_testing_sampling_or_had_not_begun(
    learn: Callable[..., ak.Version], whole: ak.Version, registry: Registry, kind: type
) -> None:
    with pytest.raises(Pulled):
        learn(registry, on_event=pull(lambda e: isinstance(e, kind)))
    assert bits(learn(registry)) == bits(whole)


def test_patience_goes_on_where_it_was(learn: Callable[..., ak.Version], tmp_path: Path) -> None:
    patient = {"epochs": "auto", "learning_rate": 0.3, "eval_steps": 1, "scheduler": "constant"}
    heard: list[Event] = []
    straight = learn(tmp_path / "straight", on_event=heard.append, **patient)
    tests = [e for e in heard if isinstance(e, events.Tested)]
    assert tests[-1].stops
    broken = tmp_path / "broken"
    with pytest.raises(Pulled):
        learn(broken, on_event=pull(at_step(tests[-2].step + 1)), **patient)
    version = learn(broken, **patient)
    assert (bits(version), curve(version)) == (bits(straight), curve(straight))


def test_a_run_killed_while_it_was_published_needs_no_more_steps(
    learn: Callable[..., ak.Version], whole: ak.Version, registry: Registry
) -> None:
    with pytest.raises(Pulled):
        learn(registry, on_event=pull(published))
    heard: list[Event] = []
    version = learn(registry, on_event=heard.append)
    assert [e for e in heard if isinstance(e, events.Stepped)] == []
    assert bits(version) == bits(whole)


def test_a_full_fine_tune_goes_on_too(learn: Callable[..., ak.Version], tmp_path: Path) -> None:
    full = {"method": "full", "learning_rate": 0.001}
    with pytest.raises(Pulled):
        learn(tmp_path / "a", on_event=pull(at_step(4)), **full)
    one, other = learn(tmp_path / "a", **full), learn(tmp_path / "b", **full)
    name = "model.safetensors"
    assert (one.path / name).read_bytes() == (other.path / name).read_bytes()


def test_a_damaged_checkpoint_is_passed_over_and_that_is_said(
    learn: Callable[..., ak.Version], whole: ak.Version, registry: Registry
) -> None:
    with pytest.raises(Pulled):
        learn(registry, on_event=pull(at_step(7)))
    folder = runs.find(registry.path, None).path
    newest, before = checkpoint.steps(folder)
    path = folder / f"checkpoint-{newest}" / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:-7])
    heard: list[Event] = []
    version = learn(registry, on_event=heard.append)
    assert any(isinstance(e, events.Said) and f"step {newest} is damaged" in e.text for e in heard)
    assert next(e.step for e in heard if isinstance(e, events.Begun)) == before
    assert bits(version) == bits(whole)


def test_writing_and_testing_draw_no_random_numbers_of_the_training(
    learn: Callable[..., ak.Version], whole: ak.Version, tmp_path: Path
) -> None:
    other = learn(tmp_path / "other", eval_steps=1)
    assert len(other.history()) > len(whole.history())
    assert weighted(whole) == pytest.approx(weighted(other), rel=1e-6)


def weighted(version: ak.Version) -> float:
    """Loss a token over the whole run, however it was cut into points."""
    total, before = 0.0, 0
    for p in version.history():
        assert p.loss is not None
        total, before = total + p.loss * (p.tokens - before), p.tokens
    return total / before


def test_trackers_are_told_the_numbers_of_the_curve(
    learn: Callable[..., ak.Version], whole: ak.Version, registry: Registry
) -> None:
    for step in (4, 9):  # the second break is after the last checkpoint
        with pytest.raises(Pulled):
            learn(registry, on_event=pull(lambda e, s=step: published(e) if s == 9 else at_step(s)(e)))
    folder = checkpoint.newest(runs.find(registry.path, None).path, pytest.fail)
    assert folder is not None
    logged = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    told = [(line["step"], line["loss"], line.get("eval_loss")) for line in logged if "loss" in line]
    assert told == [(p.step, p.loss, p.held_out) for p in whole.history()]


def published(event: Event) -> bool:
    """All steps are done, and the last texts are written."""
    return isinstance(event, events.Sampled) and event.step is None


# --- which run ------------------------------------------------------------------------


def test_the_run_is_said_and_its_folder_goes_with_the_version(
    learn: Callable[..., ak.Version], registry: Registry
) -> None:
    with pytest.raises(Pulled):
        learn(registry, on_event=pull(at_step(7)))
    assert [r.step for r in runs.unfinished(registry.path)] == [6]
    heard: list[Event] = []
    learn(registry, on_event=heard.append)
    told = [e.text for e in heard if isinstance(e, events.Said)]
    assert any(t.startswith("Going on with the run of") and "step 6" in t for t in told)
    assert not (registry.path / ".runs").exists()


def test_fresh_begins_anew_and_publishes_again(learn: Callable[..., ak.Version], registry: Registry) -> None:
    first = learn(registry)
    with pytest.raises(Pulled):
        learn(registry, resume=False, on_event=pull(at_step(7)))
    heard: list[Event] = []
    again = learn(registry, on_event=heard.append)  # the unfinished run is a fresh one: it goes on
    assert next(e.step for e in heard if isinstance(e, events.Begun)) == 6
    assert (again.number, bits(again)) == (first.number + 1, bits(first))
    assert learn(registry) == again


def test_a_changed_recipe_is_a_new_run_that_says_what_changed(
    learn: Callable[..., ak.Version], registry: Registry
) -> None:
    with pytest.raises(Pulled):
        learn(registry, on_event=pull(at_step(7)))
    heard: list[Event] = []
    learn(registry, on_event=heard.append, lora_r=4)
    told = [e.text for e in heard if isinstance(e, events.Said)]
    assert any("lora.r 8 → 4" in t and "lora.alpha 16.0 → 8.0" in t and "the text" not in t for t in told)
    assert len(runs.unfinished(registry.path)) == 1


def test_a_changed_text_is_a_new_run(
    learn: Callable[..., ak.Version], registry: Registry, text_file: Path
) -> None:
    with pytest.raises(Pulled):
        learn(registry, on_event=pull(at_step(7)))
    text_file.write_text(text_file.read_text() + "One more line came in with the morning tide, and stayed.\n")
    heard: list[Event] = []
    learn(registry, on_event=heard.append)
    assert any(isinstance(e, events.Said) and "A new run: the text changed" in e.text for e in heard)
    with pytest.raises(AdapterKitError, match="is not what it was when the run began"):
        go_on(registry=registry)


def test_resume_needs_no_source_and_no_folder(
    learn: Callable[..., ak.Version], whole: ak.Version, registry: Registry, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, text_file: Path, tiny_base: Path,
) -> None:  # fmt: skip
    with pytest.raises(Pulled):
        ak.train(text_file.name, registry=registry, base=str(tiny_base), on_event=pull(at_step(7)), **QUICK)
    monkeypatch.chdir(tmp_path)
    version = go_on("tales", registry=registry)
    assert bits(version) == bits(whole)
    assert version.manifest["data"]["source"] == "tales.txt"


def test_finish_publishes_the_best_so_far(learn: Callable[..., ak.Version], registry: Registry) -> None:
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        pull(at_step(8))(event)

    with pytest.raises(Pulled):
        learn(registry, on_event=hear)
    version = finish(registry=registry)
    best = min(e.held_out for e in heard if isinstance(e, events.Tested))
    assert version.metrics.loss == pytest.approx(best, rel=1e-5)
    assert runs.unfinished(registry.path) == []
    assert learn(registry).number == version.number + 1  # it was not the whole run


def test_what_was_auto_is_read_back_and_not_decided_again(
    text_file: Path, registry: Registry, tiny_base: Path
) -> None:
    auto = {k: v for k, v in QUICK.items() if k not in ("batch_size", "precision", "log_steps")}
    with pytest.raises(Pulled):
        ak.train(text_file, registry=registry, base=str(tiny_base), on_event=pull(at_step(7)), **auto)
    stored = runs.find(registry.path, "tales")
    recipe = {**stored.recipe, "train": {**stored.recipe["train"], "batch_size": 2, "log_steps": 5}}
    stored.write(recipe=recipe)  # as another machine would have decided
    version = ak.train(text_file, registry=registry, base=str(tiny_base), **auto)
    assert (version.recipe.train.batch_size, version.recipe.train.log_steps) == (2, 5)


def test_a_text_from_memory_goes_on_by_the_same_call_alone(
    text_file: Path, registry: Registry, tiny_base: Path
) -> None:
    texts = ak.Documents(text_file.read_text().splitlines(), name="told")
    with pytest.raises(Pulled):
        ak.train(texts, registry=registry, base=str(tiny_base), on_event=pull(at_step(7)), **QUICK)
    with pytest.raises(ak.Unsupported, match="came from memory"):
        go_on(registry=registry)
    heard: list[Event] = []
    ak.train(texts, registry=registry, base=str(tiny_base), on_event=heard.append, **QUICK)
    assert next(e.step for e in heard if isinstance(e, events.Begun)) == 6


def test_a_note_given_later_is_kept_with_the_version_that_is_there(
    learn: Callable[..., ak.Version], registry: Registry
) -> None:
    first = learn(registry)
    assert learn(registry, note="the one").note == "the one"
    assert registry[first.ref].note == "the one"


# --- stopped, and what goes wrong -----------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_saves_it(
    learn: Callable[..., ak.Version], whole: ak.Version, registry: Registry, number: int
) -> None:
    def hear(event: Event) -> None:
        if at_step(4)(event):
            os.kill(os.getpid(), number)

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match=r"stopped 'tales' at step 4 of 9; nothing is lost") as caught:
        learn(registry, on_event=hear)
    assert (caught.value.exit_code, caught.value.hint) == (130, "adapterkit train --resume")
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert checkpoint.steps(runs.find(registry.path, None).path) == [4, 3]
    assert bits(learn(registry)) == bits(whole)


def test_a_second_signal_ends_it_at_once(learn: Callable[..., ak.Version], registry: Registry) -> None:
    def hear(event: Event) -> None:
        if at_step(4)(event):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="at step 3 of 9"):
        learn(registry, on_event=hear)


def test_a_loss_that_is_no_number_leaves_the_checkpoint_before(
    learn: Callable[..., ak.Version], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = torch.nn.utils.clip_grad_norm_
    seen = 0

    def spoil(parameters: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        given = list(parameters)
        if seen == 5:
            next(p for p in given if p.grad is not None).grad.fill_(float("nan"))
        return clip(given, *args, **kwargs)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spoil)
    with pytest.raises(ak.DataError, match="the loss is not a number at step 6") as caught:
        learn(registry)
    assert "--learning-rate 0.0025" in caught.value.hint
    assert registry.versions() == []
    assert checkpoint.steps(runs.find(registry.path, None).path)[0] == 4


def test_a_full_disk_leaves_the_checkpoint_before(
    learn: Callable[..., ak.Version], whole: ak.Version, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def full(src: Any, dst: Any) -> None:
        if str(dst).endswith("checkpoint-6"):
            raise OSError(28, "No space left on device")
        rename(src, dst)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(ak.OutOfSpace, match="while saving a checkpoint of 'tales'") as caught:
            learn(registry)
    assert "adapterkit train --resume" in caught.value.hint
    assert registry.versions() == []
    assert checkpoint.steps(runs.find(registry.path, None).path) == [4, 3]
    assert bits(learn(registry)) == bits(whole)


def cuda_is_full() -> None:
    raise torch.OutOfMemoryError


def memory_is_full() -> None:
    torch.empty(1 << 50)


@pytest.mark.parametrize("fails", [cuda_is_full, memory_is_full])
def test_a_device_too_small_is_tried_again_in_halves(
    learn: Callable[..., ak.Version], registry: Registry, fails: Callable[[], None]
) -> None:
    def hear(event: Event) -> None:
        if at_step(4)(event):
            fails()

    with pytest.raises(ak.OutOfMemory, match="out of memory on cpu") as caught:
        learn(registry, on_event=hear)
    assert "goes on from step 3 in pieces half the size, with the same result" in caught.value.hint
    assert learn(registry).recipe.train.batch_size == 4


def test_no_room_on_the_disk_is_said_before_a_step(
    learn: Callable[..., ak.Version], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(registry.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(ak.OutOfSpace, match="Nothing was begun"):
        learn(registry)
    assert runs.unfinished(registry.path) == []


def test_too_little_memory_is_said_before_a_step(
    learn: Callable[..., ak.Version], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_memory", lambda place: 1_000_000)
    with pytest.raises(ak.OutOfMemory, match=r"of memory on cpu, 1.0 MB are free. Nothing was begun"):
        learn(registry)
    assert runs.unfinished(registry.path) == []


def test_a_tracker_that_is_not_here_is_refused_before_a_step(
    learn: Callable[..., ak.Version], registry: Registry
) -> None:
    with pytest.raises(ak.Unsupported, match=r"'train\.report_to' names 'tensorbord'"):
        learn(registry, report_to=["tensorbord"])
    assert runs.unfinished(registry.path) == []


def test_two_processes_do_not_train_one_run(learn: Callable[..., ak.Version], registry: Registry) -> None:
    with pytest.raises(Pulled):
        learn(registry, on_event=pull(at_step(7)))
    with (
        runs.find(registry.path, None).held(),
        pytest.raises(ak.Overloaded, match="is being trained already"),
    ):
        learn(registry)


def test_time_that_is_up_ends_the_steps_and_keeps_the_best(
    learn: Callable[..., ak.Version], registry: Registry
) -> None:
    heard: list[Event] = []
    version = learn(registry, on_event=heard.append, minutes=0.0001, epochs=50)
    assert [e.step for e in heard if isinstance(e, events.Tested)] == [1]
    assert version.metrics.loss is not None


# --- in processes of their own ----------------------------------------------------------

KILLS = 20


def command(registry: Path, base: Path, number: int) -> list[str]:
    """``adapterkit train``, every second time with patience that ends it."""
    ends = (
        ["--epochs", "auto", "--learning-rate", "0.3", "--scheduler", "constant"]
        if number % 2
        else ["--epochs", "6", "--learning-rate", "0.01"]
    )
    told = {
        "max-length": 64,
        "tokens-per-step": 1024,
        "max-new-tokens": 8,
        "save-steps": 2,
        "eval-steps": 3,
        "device": "cpu",
    }
    flags = [word for key, value in told.items() for word in (f"--{key}", str(value))]
    return [sys.executable, "-m", "adapterkit", "train", "tales.txt", "--base", str(base), *ends, *flags,
            "--registry", str(registry)]  # fmt: skip


def planned(words: list[str]) -> subprocess.Popen[str]:
    """A process of it whose steps are about to begin, or that has ended already."""
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "Plan: " in line:
            break
    return process


@pytest.mark.slow
@pytest.mark.usefixtures("text_file")
def test_killed_at_any_moment_it_goes_on_to_the_same_bits(tiny_base: Path, tmp_path: Path) -> None:
    """Kill -9 anywhere from the plan to the end: in steps, tests, samples, checkpoints, publishing."""
    expected, lasts = [], []
    for number in (0, 1):
        process = planned(command(tmp_path / f"whole-{number}", tiny_base, number))
        begun = time.monotonic()
        assert (process.communicate(), process.returncode)[1] == 0
        lasts.append(time.monotonic() - begun)
        expected.append(bits(Registry(tmp_path / f"whole-{number}")["tales"]))
    draw, found, at = random.Random(4), [], []
    for number in range(KILLS):
        words = command(tmp_path / f"killed-{number}", tiny_base, number)
        process = planned(words)
        time.sleep(draw.uniform(0, lasts[number % 2]))
        process.kill()
        process.communicate()
        store = Registry(tmp_path / f"killed-{number}")
        at.append([run.step for run in runs.unfinished(store.path)])
        subprocess.run(words, check=True, capture_output=True)
        found.append(bits(store["tales"]) == expected[number % 2])
        assert len(store.versions()) == 1
        assert not (store.path / ".runs").exists()
    assert found == [True] * KILLS, at
    assert len({tuple(steps) for steps in at}) > KILLS // 4  # the moments were different ones


@pytest.mark.slow
def test_checkpoints_damaged_at_any_byte_give_way_to_the_one_before(
    learn: Callable[..., ak.Version], whole: ak.Version, registry: Registry, tmp_path: Path
) -> None:
    with pytest.raises(Pulled):
        learn(registry, on_event=pull(at_step(8)))
    draw, begun = random.Random(5), []
    for number in range(20):
        copy = Registry(shutil.copytree(registry.path, tmp_path / f"copy-{number}"))
        folder = runs.find(copy.path, None).path
        newest, before = checkpoint.steps(folder)
        path = draw.choice(sorted((folder / f"checkpoint-{newest}").iterdir()))
        data, at = bytearray(path.read_bytes()), draw.randrange(path.stat().st_size)
        data[at] ^= 1 << draw.randrange(8)
        path.write_bytes(data if number % 2 else data[:at])
        heard: list[Event] = []
        assert bits(learn(copy, on_event=heard.append)) == bits(whole), (path.name, at)
        begun += [e.step == before for e in heard if isinstance(e, events.Begun)]
    assert begun == [True] * 20


# --- around the end of a run, and runs that can't go on here ----------------------------


def test_a_run_killed_before_the_comparison_is_compared_the_next_time(
    learn: Callable[..., ak.Version], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``best`` must not stay at a worse version that nobody compared."""
    good = learn(registry)
    worse = {"learning_rate": 1e-5, "validation": 0.3}  # other text is held out
    with monkeypatch.context() as patch:
        patch.setattr(run, "compare_with_best", lambda *_: (_ for _ in ()).throw(Pulled()))
        with pytest.raises(Pulled):
            learn(registry, **worse)
    assert registry.latest("tales").number == 2
    learn(registry, **worse)
    assert registry.best("tales") == good
    assert runs.unfinished(registry.path) == []


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_whose_device_is_gone_is_said_and_does_not_block(
    learn: Callable[..., ak.Version], whole: ak.Version, registry: Registry, resume: bool
) -> None:
    """A registry taken home from a notebook with a GPU."""
    with pytest.raises(Pulled):
        learn(registry, device="auto", precision="auto", on_event=pull(at_step(4)))
    (there,) = runs.unfinished(registry.path)
    told = json.loads((there.path / "run.json").read_text())
    told["recipe"]["train"] |= {"device": "cuda", "precision": "fp16"}
    (there.path / "run.json").write_text(json.dumps(told))
    heard: list[Event] = []
    version = learn(registry, device="auto", precision="auto", resume=resume, on_event=heard.append)
    assert bits(version) == bits(whole)
    said = [e.text for e in heard if isinstance(e, events.Said)]
    assert any("can't go on here: there is no CUDA GPU" in text for text in said)


def test_a_text_of_very_many_files_can_be_published(
    tmp_path: Path, tiny_base: Path, registry: Registry
) -> None:
    (tmp_path / "chapters").mkdir()
    names = []
    for i in range(300):
        path = tmp_path / "chapters" / f"chapter-with-a-long-name-number-{i:03}.txt"
        path.write_text(f"{SENTENCES[i % 8]} {SENTENCES[i // 8 % 8]} {SENTENCES[(i * 5 + 3) % 8]}\n")
        names.append(path)
    version = ak.train(names, name="book", registry=registry, base=str(tiny_base), **QUICK | {"epochs": 1})
    told = version.manifest["data"]["source"]
    assert len(told) == 20
    assert told[-1] == "and 281 more"
    assert ak.evaluate(["book"], registry=registry)[0].loss == pytest.approx(version.metrics.loss, rel=1e-5)


def test_prompts_that_no_manifest_can_hold_are_refused_before_a_step(
    learn: Callable[..., ak.Version], registry: Registry
) -> None:
    with pytest.raises(RecipeError, match=r"sample.prompts"):
        learn(registry, prompts=["The sea " * 1000])
