"""The hostile corpus through every way in: all refused, each by its code, and nothing else happens.

One child process reads the whole corpus, so that what it opens, runs and
allocates is its own; the claims about it are tests of one report.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import adapterkit as ak
from adapterkit.errors import AdapterKitError
from adapterkit.registry import place
from adapterkit.registry.strict import WEIGHTS, read_lora
from tests.make import make_peft_adapter
from tests.registry import hostile

SECONDS = 1  # of the processor, for one adapter: a guard against hanging, not a measurement
MEGABYTES = 64
LEAVES = (
    *("socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork"),
    *("pickle.find_class", "ctypes.", "exec", "urllib."),
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> dict[str, Any]:
    """What a child tells that was given the corpus as folders, and as versions of a registry."""
    from adapterkit.model.base import locate

    root = tmp_path_factory.mktemp("hostile")
    (root / "corpus").mkdir()
    place.create(root / "adapters")
    prints = locate(str(tiny_base)).fingerprints
    told = {"weights": prints.weights, "config": prints.config, "tokenizer": prints.tokenizer}
    cases = hostile.corpus(root / "corpus")
    hostile.commit(hostile.good(root / "adapters" / "fine" / "1"), told)
    tasks = [{"name": c.name, "code": c.code, "folder": str(c.folder)} for c in cases]
    for case in (c for c in cases if c.files):
        folder = hostile.publish(case, root / "adapters", told)
        tasks.append({"name": case.name, "code": case.code, "ref": folder.parent.name})
    for case in hostile.versions(root / "adapters", told):
        tasks.append({"name": case.name, "code": case.code, "ref": case.folder.parent.name})
    (root / "tasks.json").write_text(json.dumps(tasks))
    done = subprocess.run(
        [sys.executable, "-c", "from tests.registry.test_adversarial import in_child; in_child()"],
        env={
            **os.environ,
            "ROOT": str(root),
            "BASE": str(tiny_base),
            "ADAPTERKIT_CACHE": str(root / "cache"),
        },
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout), "canary": (root / "corpus" / hostile.CANARY).exists(), "tasks": tasks}


def test_the_corpus_is_large_and_no_two_of_it_are_the_same(report: dict[str, Any]) -> None:
    names = [t["name"] for t in report["tasks"] if "folder" in t]
    assert len(names) == len(set(names)) >= 150


def test_every_hostile_adapter_is_refused_with_its_own_code(report: dict[str, Any]) -> None:
    wrong = [(t["name"], t["code"], t["got"]) for t in report["done"] if t["got"] != t["code"]]
    assert wrong == []


def test_every_refusal_says_what_to_do(report: dict[str, Any]) -> None:
    assert [t["name"] for t in report["done"] if not t["hint"]] == []


def test_no_refusal_moves_a_cursor_or_fills_a_screen(report: dict[str, Any]) -> None:
    said = [t["message"] for t in report["done"]]
    assert [m for m in said if len(m) > 400 or not m.isprintable()] == []


def test_nothing_is_run(report: dict[str, Any]) -> None:
    assert (report["canary"], [t["name"] for t in report["done"] if t["left"]]) == (False, [])


def test_nothing_is_opened_outside(report: dict[str, Any]) -> None:
    assert [(t["name"], t["outside"]) for t in report["done"] if t["outside"]] == []


def test_the_resident_base_is_the_same_after_each(report: dict[str, Any]) -> None:
    assert [t["name"] for t in report["done"] if t["base"] != report["base"]] == []


def test_the_good_adapter_writes_as_before(report: dict[str, Any]) -> None:
    assert report["after"] == report["before"] != report["plain"]


def test_none_takes_more_memory_than_its_share(report: dict[str, Any]) -> None:
    assert [(t["name"], t["megabytes"]) for t in report["done"] if t["megabytes"] >= MEGABYTES] == []


def test_what_is_opened_outside_and_what_is_run_would_be_noticed(tmp_path: Path) -> None:
    watch = _Watch([tmp_path])
    with watch.on():
        watch("open", (str(tmp_path / "inside"), "r", 0))
        watch("open", (str(tmp_path / ".." / "outside"), "r", 0))
        watch("socket.connect", ())
    pickle.loads(pickle.dumps(hostile.Run(tmp_path / hostile.CANARY)))
    assert [Path(p).name for p in watch.seen()["outside"]] == ["outside"]
    assert watch.seen()["left"] == ["socket.connect"]
    assert (tmp_path / hostile.CANARY).exists()


def in_child() -> None:
    """Read every task of ``$ROOT/tasks.json`` and tell on stdout what happened."""
    from adapterkit.generation.load import resident_digest

    root, told = Path(os.environ["ROOT"]), {"temperature": 0, "max_new_tokens": 8}
    gen = ak.Generator(os.environ["BASE"], registry=root / "adapters", device="cpu")
    plain, before = gen("The", None, **told).text, gen("The", "fine", **told).text  # all is loaded now
    engine = gen.writer(None).engine
    base, watch, done = resident_digest(engine), _Watch([root, Path(os.environ["BASE"])]), []
    sys.addaudithook(watch)
    tracemalloc.start()  # knows of bytes and arrays; torch is not reached by what is refused
    for task in json.loads((root / "tasks.json").read_text()):
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        with _limit(SECONDS), watch.on():
            error = _refusal(gen, task)
        most = (tracemalloc.get_traced_memory()[1] - held) / 1e6
        done.append({**task, **error, **watch.seen(), "megabytes": most, "base": resident_digest(engine)})
    tracemalloc.stop()
    after = gen("The", "fine", **told).text
    seen = {"done": done, "base": base, "before": before, "after": after, "plain": plain}
    sys.stdout.write(json.dumps(seen))


def _refusal(gen: ak.Generator, task: dict[str, Any]) -> dict[str, Any]:
    try:
        if "folder" in task:
            read_lora(Path(task["folder"]), hostile.DIMS, "the stranger")
        else:
            gen("The", task["ref"], max_new_tokens=1)
    except AdapterKitError as e:
        return {"got": e.code, "hint": e.hint, "message": e.message}
    except Exception as e:
        return {"got": f"{type(e).__name__}: {e}", "hint": "", "message": ""}
    return {"got": "accepted", "hint": "", "message": ""}


class _Watch:
    """An audit hook that notes what is opened outside some folders, and what leaves the process."""

    def __init__(self, inside: list[Path]) -> None:
        self._inside = [os.path.realpath(p) for p in inside]
        self._is_on, self._outside, self._left = False, [], []  # type: tuple[bool, list[str], list[str]]

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(args[0]))
            if not any(path == p or path.startswith(p + os.sep) for p in self._inside):
                self._outside.append(path)
        elif event.startswith(LEAVES):
            self._left.append(event)

    @contextmanager
    def on(self) -> Iterator[None]:
        self._outside, self._left, self._is_on = [], [], True
        try:
            yield
        finally:
            self._is_on = False

    def seen(self) -> dict[str, list[str]]:
        return {"outside": self._outside, "left": self._left}


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Stop what computes for longer, and what waits for a minute."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"over {seconds} s")

    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


# --- why it is needed: what PEFT makes of such files ---


def _overwrite_the_base(tensors: dict[str, Any]) -> None:
    import torch

    tensors["base_model.model.transformer.wte.weight"] = torch.zeros(400, 32)


def _take_half_away(tensors: dict[str, Any]) -> None:
    for name in [n for n in tensors if "lora_B" in n]:
        del tensors[name]


def _spoil(tensors: dict[str, Any]) -> None:
    next(iter(tensors.values()))[:] = float("nan")


@pytest.mark.filterwarnings("ignore")  # PEFT warns of some of them, and goes on
@pytest.mark.parametrize("harm", [_overwrite_the_base, _take_half_away, _spoil])
def test_peft_loads_what_is_refused_here(
    harm: Callable[[dict[str, Any]], None], tiny_base: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file, save_file
    from transformers import GPT2LMHeadModel

    folder = make_peft_adapter(tmp_path / "a", tiny_base, seed=1, targets=["attn.c_attn", "attn.c_proj"])
    held = load_file(folder / WEIGHTS)
    harm(held)
    save_file(held, folder / WEIGHTS)
    PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(tiny_base), folder)
    with pytest.raises(AdapterKitError):
        read_lora(folder, hostile.DIMS, "the stranger")
