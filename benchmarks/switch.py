"""What it costs to change the style: a switch, a load, a thousand loads, loads under way, and a cold start.

    ADAPTERKIT_DATA=... python benchmarks/switch.py [--only switch,load] [--quick]      about a quarter of an hour on two cores

GPT-2 124M's shapes with random weights, adapters of rank 8 on attn.c_attn saved
by PEFT, in a registry; two threads. Beside each figure is PEFT's, in turn:

    switch   calls of one new token (8 tokens of prompt) that go through all loaded
             adapters, beside calls that stay with one: what a call takes more. In
             blocks of ten, in turn. 32 and 1,000 loaded; PEFT's set_adapter with 32, 128
    load     a version that is not loaded, with 32 loaded: Generator.load, load_adapter
    leak     RssAnon over 1,000 loads and unloads, after a hundred
    flow     time between the tokens of eight streams, while an adapter is loaded every
             second and while none is, in turn
    start    a whole process to its first token: with the machine known, unknown, and PEFT

Writes benchmarks/results/switch.json; a run of some sections leaves the others' rows there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generate import Worker, answer, data_folder, machine, prepared, text_of, written
from start import PEER, first_byte

FEW, MORE, THOUSAND = 32, 128, 1000
PROMPT, BLOCK, EACH, ROWS = 8, 10, 4, 8
SECTIONS = ("switch", "load", "leak", "flow", "start")
HOW = {"none": "fp32", "8bit": "8-bit"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much of each section is run; a quick one on a base of three layers."""

    blocks: int = 100  # pairs of blocks of a switch; of PEFT's one in EACH
    loads: int = 20
    warm_up: int = 100
    cycles: int = 1000
    windows: int = 6  # of either kind
    seconds: float = 10.0  # of a window
    starts: int = 3
    loaded: tuple[int, ...] = (FEW, THOUSAND)


QUICK = Plan(blocks=4, loads=2, warm_up=5, cycles=10, windows=1, seconds=2.0, starts=1, loaded=(FEW, 2 * FEW))


# --- workers: lines in, JSON out --------------------------------------------------------


def worker(who: str, folder: Path) -> None:
    import torch

    torch.set_num_threads(2)
    kind, _, quantize = who.partition(" ")
    acts = {"ours": ours, "peft": peft, "flow": flow}[kind](folder, quantize)
    answer()
    for line in sys.stdin:
        verb, *numbers = line.split()
        answer(told=acts[verb](*map(float, numbers)))


Acts = dict[str, Callable[..., Any]]


def generator(folder: Path, quantize: str) -> Any:
    from adapterkit import Generator

    return Generator(folder / "base", registry=folder / "registry", device="cpu", quantize=quantize)


def ours(folder: Path, quantize: str) -> Acts:
    gen, text = generator(folder, quantize), prompt_of(folder)[0]

    def call(i: int) -> None:
        gen(text, name(i), temperature=0, max_new_tokens=1, seed=0)

    def have(count: float) -> int:
        gen.load(*map(name, range(len(gen.adapters()), int(count))))
        return len(gen.adapters())

    def load(i: float) -> float:
        begun = time.perf_counter()
        gen.load(name(int(i)))
        seconds = time.perf_counter() - begun
        gen.unload(name(int(i)))
        return seconds

    def cycles(count: float) -> float:
        for i in range(int(count)):
            load(FEW + i % FEW)
        return anonymous()

    def block(count: float, at: float) -> tuple[float, float]:
        return pair(call, lambda i: None, int(count), int(at))

    return {"have": have, "block": block, "load": load, "cycles": cycles}


def peft(folder: Path, _: str) -> Acts:
    """Its model with its adapters beside each other."""
    import torch
    from peft import PeftModel
    from transformers import GPT2LMHeadModel

    base = GPT2LMHeadModel.from_pretrained(folder / "base", attn_implementation="sdpa")
    base.generation_config.eos_token_id, base.generation_config.pad_token_id = None, 0
    model: Any = PeftModel.from_pretrained(base, adapter_folder(folder, 0), adapter_name=name(0)).eval()
    ids = torch.tensor([prompt_of(folder)[1]])
    told = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": 1, "do_sample": False}

    def call(_: int) -> None:
        with torch.inference_mode():
            model.generate(**told)

    def add(i: int, lean: bool = True) -> None:
        model.load_adapter(adapter_folder(folder, i), adapter_name=name(i), low_cpu_mem_usage=lean)

    def have(count: float) -> int:
        begun = time.perf_counter()
        for i in range(len(model.peft_config), int(count)):
            add(i)
            if time.perf_counter() - begun > 60:
                break
        model.set_adapter(name(0))
        return len(model.peft_config)

    def load(i: float, lean: float) -> float:
        begun = time.perf_counter()
        add(int(i), lean=bool(lean))
        seconds = time.perf_counter() - begun
        model.delete_adapter(name(int(i)))
        return seconds

    def block(count: float, at: float) -> tuple[float, float]:
        return pair(call, lambda i: model.set_adapter(name(i)), int(count), int(at))

    return {"have": have, "block": block, "load": load}


def pair(
    call: Callable[[int], None], switch: Callable[[int], None], count: int, at: int
) -> tuple[float, float]:
    """Medians of a block of calls that stay with one adapter, and of one that goes on through ``count`` of them."""

    def block(chosen: Callable[[int], int], *, is_switched: bool) -> float:
        switch(0)
        call(0)
        taken = []
        for i in range(BLOCK):
            begun = time.perf_counter()
            if is_switched:
                switch(chosen(i))
            call(chosen(i))
            taken.append(time.perf_counter() - begun)
        return statistics.median(taken)

    def stay() -> float:
        return block(lambda i: 0, is_switched=False)

    def go() -> float:
        return block(lambda i: (at * BLOCK + i + 1) % count, is_switched=True)

    if at % 2:
        moved, stayed = go(), stay()
    else:
        stayed, moved = stay(), go()
    return stayed, moved


def flow(folder: Path, quantize: str) -> Acts:
    """Eight streams that never end, and a window of them with loads or without."""
    gen, text = generator(folder, quantize), prompt_of(folder)[0]
    gen.load(*map(name, range(ROWS)))
    seen: list[tuple[float, float]] = []  # when a token came, and how long after the one before

    def write(row: int) -> None:
        while True:
            before = None
            # one token always, so that each is a piece of text of its own
            for _ in gen.stream(
                text, name(row), max_new_tokens=200 + row, temperature=0, logit_bias={word: 100}
            ):
                now = time.perf_counter()
                if before is not None:
                    seen.append((now, now - before))
                before = now

    word = prompt_of(folder)[1][-1]
    for row in range(ROWS):
        threading.Thread(target=write, args=(row,), daemon=True).start()

    def window(seconds: float, loads: float) -> dict[str, Any]:
        time.sleep(0.2)
        begun, i, took = time.perf_counter(), 0, []
        while (now := time.perf_counter()) < begun + seconds:
            if loads:
                gen.load(name(FEW + i))
                took.append(time.perf_counter() - now)
                gen.unload(name(FEW + i))
                i += 1
            time.sleep(max(0.0, min(begun + seconds, now + 1.0) - time.perf_counter()))
        gaps = [gap for at, gap in list(seen) if begun <= at <= begun + seconds]
        return {"gaps": gaps, "loads": took}

    return {"window": window}


def prompt_of(folder: Path) -> tuple[str, list[int]]:
    text, ids = json.loads((folder / "prompt.json").read_text())
    return text, ids


def anonymous() -> float:
    """Anonymous memory of this process in MB."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
    return int(line.split()[1]) / 1e3


def name(i: int) -> str:
    return f"s{i}"


def adapter_folder(folder: Path, i: int) -> Path:
    """A published version is a folder that PEFT reads."""
    return folder / "registry" / name(i) / "1"


# --- the registry -----------------------------------------------------------------------


def shelved(folder: Path, count: int) -> None:
    """So many versions: the first imported from PEFT's own file, the others published with other numbers in it."""
    import numpy as np

    from adapterkit.registry import tensorfile
    from adapterkit.registry.store import Registry

    registry = Registry(folder / "registry")
    first = registry.add(folder / "each-0", name=name(0), base=str(folder / "base"))
    manifest = {k: v for k, v in first.manifest.items() if k not in ("created", "digest", "files", "version")}
    shapes = tensors_of(first.path)
    draw = np.random.default_rng(0)
    for i in range(1, count):
        with registry.staging() as staged:
            for path in first.path.iterdir():
                if path.suffix in (".json", ".md") and path.name != "manifest.json":
                    (staged / path.name).write_bytes(path.read_bytes())
            made = {
                n: ("F32", shape, (0.02 * draw.standard_normal(shape, np.float32)).tobytes())
                for n, shape in shapes.items()
            }
            tensorfile.write(staged / "adapter_model.safetensors", made, {"format": "pt"})
            registry.publish(staged, {**manifest, "name": name(i)})


def tensors_of(folder: Path) -> dict[str, tuple[int, ...]]:
    from adapterkit.registry import tensorfile

    header = tensorfile.read_header(folder / "adapter_model.safetensors")
    return {n: entry.shape for n, entry in header.entries.items()}


# --- the sections -----------------------------------------------------------------------


def switch(folder: Path, plan: Plan) -> Iterator[Row]:
    """Microseconds that a call takes more."""
    mine = [workers(folder, f"ours {quantize}") for quantize in HOW]
    theirs = workers(folder, "peft")
    try:
        for count in plan.loaded:
            have = [w.ask(f"have {count}")["told"] for w in mine]
            peer_has = theirs.ask(f"have {min(count, MORE)}")["told"]
            runs: list[list[tuple[float, float]]] = [[], [], []]
            for at in range(-1, plan.blocks):
                each = [(mine[0], have[0]), (mine[1], have[1]), (theirs, peer_has)]
                for kept, (w, n) in zip(runs, each[: 3 if at % EACH in (0, EACH - 1) else 2], strict=False):
                    got = w.ask(f"block {n} {max(at, 0)}")["told"]
                    kept += [tuple(got)] if at >= 0 else []  # the first warms up
            for form, n, own in zip(HOW.values(), have, runs, strict=False):
                what = f"switch, {n} loaded: {form}, PEFT with {peer_has}"
                yield switched(what, own, runs[2])
    finally:
        close([*mine, theirs])


def switched(what: str, mine: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> Row:
    """Medians of the paired differences with their 95 % intervals, and beside them the calls themselves."""
    more, other = ([1e6 * (go - stay) for stay, go in runs] for runs in (mine, theirs))
    calls = [1e6 * statistics.median(stay for stay, _ in runs) for runs in (mine, theirs)]
    return {"what": what, "ours": statistics.median(more), "peer": statistics.median(other), "unit": "us more a call",
            "ratio": None, "bar": 50, "better": "lower", "interval": [interval(more), interval(other)], "call_us": calls,
            "runs": more, "peer_runs": other}  # fmt: skip


def interval(numbers: list[float]) -> tuple[float, float]:
    """Where the median lies in 95 of 100 cases, by the order of what was measured."""
    ordered, n = sorted(numbers), len(numbers)
    reach = 0.98 * n**0.5
    return ordered[max(0, int(n / 2 - reach))], ordered[min(n - 1, math.ceil(n / 2 + reach) - 1)]


def load(folder: Path, plan: Plan) -> Iterator[Row]:
    mine, theirs = [workers(folder, f"ours {q}") for q in HOW], workers(folder, "peft")
    try:
        for w in (*mine, theirs):
            w.ask(f"have {FEW}")
        runs = []
        for i in range(FEW, FEW + plan.loads):
            took = [w.ask(f"load {i}")["told"] for w in mine]
            runs.append([*took, *(theirs.ask(f"load {i} {lean}")["told"] for lean in (0, 1))])
        for at, form in enumerate(HOW.values()):
            for peer_at, how in ((2, "load_adapter"), (3, "load_adapter(low_cpu_mem_usage=True)")):
                own, other = ([1e3 * r[i] for r in runs] for i in (at, peer_at))
                yield row(f"load, {FEW} loaded: {form}, PEFT's {how}", own, other, "ms", bar=20)
    finally:
        close([*mine, theirs])


def leak(folder: Path, plan: Plan) -> Iterator[Row]:
    for quantize, form in HOW.items():
        w = workers(folder, f"ours {quantize}")
        try:
            w.ask(f"have {FEW}")
            before = w.ask(f"cycles {plan.warm_up}")["told"]
            after = w.ask(f"cycles {plan.cycles}")["told"]
        finally:
            w.close()
        what = f"leak, {plan.cycles:,} loads and unloads: {form}, RssAnon after and before"
        yield {**row(what, [after], [before], "MB", bar=1.02), "ratio": after / before}


def flow_rows(folder: Path, plan: Plan) -> Iterator[Row]:
    for quantize, form in HOW.items():
        w = workers(folder, f"flow {quantize}")
        try:
            w.ask("window 2 1")
            runs = []
            for at in range(plan.windows):
                order = (1, 0) if at % 2 else (0, 1)
                both = {loads: w.ask(f"window {plan.seconds} {loads}")["told"] for loads in order}
                runs.append((both[1], both[0]))
        finally:
            w.close()
        for share in (50, 99):
            own, other = ([1e3 * percentile(r[i]["gaps"], share) for r in runs] for i in (0, 1))
            what = f"flow, p{share} between tokens, {ROWS} streams: {form}, loading one a second and none"
            out = row(what, own, other, "ms", bar=1.5 if share == 99 else None)
            yield {**out, "ratio": statistics.median(a / b for a, b in out["runs"])}
        loads = [1e3 * s for r in runs for s in r[0]["loads"]]
        yield row(f"flow, a load under way: {form}", loads, None, "ms")


def percentile(numbers: list[float], share: int) -> float:
    return statistics.quantiles(numbers, n=100)[share - 1]


def start(folder: Path, plan: Plan) -> Iterator[Row]:
    """Whole processes; the files of base and adapter are in the system's cache for all of them."""
    env = os.environ | {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
    me = [sys.executable, "-m", "adapterkit", "generate", name(0), "The sea", "--registry", str(folder / "registry"),
          "--base", str(folder / "base"), "--max-new-tokens", "8", "--temperature", "0",
          "--logit-bias", f"{prompt_of(folder)[1][-1]}=100"]  # fmt: skip
    peer = [sys.executable, "-c", PEER, str(folder / "base"), str(adapter_folder(folder, 0))]
    known = folder / "known"
    first_byte(me, env | {"ADAPTERKIT_CACHE": str(known)})
    runs = []
    for i in range(plan.starts):
        fresh = env | {"ADAPTERKIT_CACHE": str(folder / f"unknown-{i}")}
        runs.append((first_byte(me, env | {"ADAPTERKIT_CACHE": str(known)}), first_byte(me, fresh), first_byte(peer, env)))  # fmt: skip
    theirs = [r[2] for r in runs]
    yield row("start, first token: generate, PEFT + transformers", [r[0] for r in runs], theirs, "s", bar=4)
    yield row("start, the first on this machine (8 bits measured, base hashed)", [r[1] for r in runs], theirs, "s")  # fmt: skip


# --- the table --------------------------------------------------------------------------


def row(what: str, mine: list[float], theirs: list[float] | None, unit: str, bar: float | None = None) -> Row:
    """Medians, and how many times the peer takes as long."""
    pairs = list(zip(mine, theirs, strict=True)) if theirs else [(m, None) for m in mine]
    return {"what": what, "ours": statistics.median(mine), "peer": statistics.median(theirs) if theirs else None, "unit": unit,
            "ratio": statistics.median(b / a for a, b in pairs) if theirs else None, "bar": bar, "better": "lower",
            "runs": pairs}  # fmt: skip


def line(r: Row) -> str:
    peer_text = "" if r["peer"] is None else f"{r['peer']:10,.2f}"
    ratio = "" if r["ratio"] is None else f"{r['ratio']:8.3f}x"
    bar = "" if r["bar"] is None else f"  bar {r['bar']:g}"
    sure = "  ({:,.0f} to {:,.0f}; PEFT {:,.0f} to {:,.0f})".format(*r["interval"][0], *r["interval"][1]) if "interval" in r else ""  # fmt: skip
    return f"{r['what']:<88} {r['ours']:10,.2f} {peer_text:>10} {r['unit']}{ratio}{sure}{bar}"


def workers(folder: Path, who: str) -> Worker:
    return Worker(who, __file__, "--worker", who, str(folder))


def close(some: Iterable[Worker]) -> None:
    for w in some:
        w.close()


def merged(rows: list[Row], sections: Iterable[str]) -> list[Row]:
    """With the rows of sections that were not run now, if this was on the same machine."""
    place = Path(__file__).parent / "results" / "switch.json"
    before = json.loads(place.read_text()) if place.is_file() else {}
    others = before.get("rows", []) if before.get("machine") == machine() else []
    kept = [r for r in others if r["what"].split(",")[0] not in sections]
    return sorted(kept + rows, key=lambda r: SECTIONS.index(r["what"].split(",")[0]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, between commas")
    parser.add_argument("--quick", action="store_true", help="see that all runs; writes nothing")
    asked = parser.parse_args()
    if asked.worker:
        worker(asked.worker[0], Path(asked.worker[1]))
        return
    plan = QUICK if asked.quick else Plan()
    chosen = asked.only.split(",")
    run = {"switch": switch, "load": load, "leak": leak, "flow": flow_rows, "start": start}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="adapterkit-bench-") as scratch:
        folder = Path(scratch)
        os.environ["ADAPTERKIT_CACHE"] = f"{scratch}/cache"
        print("making adapters ...", file=sys.stderr)
        prepared(data_folder(), folder, kinds=("each",), many=1, layers=3 if asked.quick else 12)
        (folder / "prompt.json").write_text(json.dumps(text_of(folder / "base", PROMPT, seed=0)))
        shelved(
            folder,
            max(*plan.loaded, 2 * FEW) if "switch" in chosen else THOUSAND if not asked.quick else 2 * FEW,
        )
        print(machine())
        for section in chosen:
            for made in run[section](folder, plan):
                print(line(made), flush=True)
                rows.append(made)
    if not asked.quick:
        written("switch.json", {"machine": machine(), "prompt": PROMPT, "new": 1, "threads": 2, "rows": merged(rows, chosen)})  # fmt: skip


if __name__ == "__main__":
    main()
