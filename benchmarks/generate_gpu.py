"""Writing speed on a GPU: us in four formats beside PEFT's and transformers' ``generate``, in turn in one process.

    ADAPTERKIT_DATA=... python benchmarks/generate_gpu.py [--rounds 5] [--new 64]

GPT-2 124M's shapes with random weights, 32 adapters of rank 8 on attn.c_attn and
32 on all modules, a prompt of 32 tokens, the most likely token each time. What is
timed is the whole call; "ours" is the public Generator, from texts to texts,
"model" what lies under it, from ids to ids, as the peers have it. PEFT and
transformers first try their attentions and caches (a static cache is compiled)
and take the fastest that works for each case. Each round lets all write once in
turn, and ratios are of one round. Memory is what each one's weights and adapters
take on the GPU. Writes benchmarks/results/generate_gpu.json.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from generate import NEW, PROMPT, ROUNDS, data_folder, machine, prepared, text_of, written

MANY, TRIED, PLACE = 32, 16, "cuda"
FORMATS = {"fp16": ("fp16", "none"), "bf16": ("bf16", "none"), "8-bit": ("fp16", "8bit"), "4-bit": ("fp16", "4bit")}  # fmt: skip
ONE, BASE = "1 row", f"{MANY} rows, base"
SAME, MIXED = f"{MANY} rows, 1 adapter", f"{MANY} rows, {MANY} adapters"
SAME_ALL, MIXED_ALL = f"{SAME} on all modules", f"{MIXED} on all modules"
# what -> rows, adapters of each row: one, each its own, none; kind of adapter
CASES = {ONE: (1, "one", "each"), BASE: (MANY, "none", "each"), SAME: (MANY, "one", "each"), MIXED: (MANY, "each", "each"),
         SAME_ALL: (MANY, "one", "all"), MIXED_ALL: (MANY, "each", "all")}  # fmt: skip
PEERS = {"peft": [ONE, SAME, MIXED], "transformers": [ONE, BASE]}
WAYS = list(product(("sdpa", "eager"), ("dynamic", "static")))
BARS = {(MIXED, "ours fp16", "peft fp16"): 10.0}
Write = Callable[[str, int], int]  # a case, new tokens of each row -> of all
Speeds = dict[tuple[str, str], list[float]]  # (who, case) -> tokens a second, a number each round


# --- who writes ---------------------------------------------------------------------


def ours(form: str, folder: Path, texts: list[str]) -> Write:
    """The public Generator with every adapter loaded."""
    from adapterkit import Generator

    precision, quantize = FORMATS[form]
    made = Generator(folder / "base", registry=folder / "registry", device=PLACE, precision=precision, quantize=quantize)  # fmt: skip
    made.load(*(f"{kind}-{i}" for kind in ("each", "all") for i in range(MANY)))

    def write(case: str, new: int) -> int:
        rows, adapters, kind = CASES[case]
        names = [None if adapters == "none" else f"{kind}-{i * (adapters == 'each')}" for i in range(rows)]
        wrote = made(texts[:rows], names, temperature=0, max_new_tokens=new)
        return sum(c.usage.new_tokens for c in wrote)

    return write


def model(form: str, folder: Path, prompts: Any) -> Write:
    """The model with a bank of pages, without the texts and the draws around it."""
    import torch

    from adapterkit.generation.load import engine
    from adapterkit.model.base import locate
    from adapterkit.model.device import choose
    from adapterkit.registry.strict import read_lora

    base = locate(str(folder / "base"))
    made = engine(base, choose(PLACE, form))
    gpt2, bank = made.model, made.bank
    loaded = {(kind, i): bank.load(read_lora(folder / f"{kind}-{i}", base.dims, kind)) for kind in ("each", "all") for i in range(MANY)}  # fmt: skip

    def write(case: str, new: int) -> int:
        rows, adapters, kind = CASES[case]
        ids, lengths = prompts[:rows], torch.full((rows,), PROMPT, device=prompts.device)
        parts = [() if adapters == "none" else ((loaded[kind, i * (adapters == "each")], 1.0),) for i in range(rows)]  # fmt: skip
        route, cache = bank.route(parts), gpt2.new_cache(rows, PROMPT + new)
        logits = gpt2.prefill(ids, lengths, cache, route)
        for i in range(new - 1):
            logits = gpt2.step(logits.argmax(-1), lengths + i, cache, route)
        return len(logits.argmax(-1).tolist()) * new

    return write


class Peer:
    """transformers' model, or PEFT's with the adapters of attn.c_attn; a batch of several by ``adapter_names``."""

    def __init__(self, kind: str, folder: Path, prompts: Any) -> None:
        self._kind, self._folder, self._prompts = kind, folder, prompts
        self._load()
        self.best = {case: self._fastest(case) for case in PEERS[kind]}

    def write(self, case: str, new: int) -> int:
        return self._generate(case, new, *self.best[case])

    def _load(self) -> None:
        import torch
        from transformers import GPT2LMHeadModel

        made: Any = GPT2LMHeadModel.from_pretrained(self._folder / "base", dtype=torch.float16)
        made.generation_config.eos_token_id = None  # all write to the end
        made.generation_config.pad_token_id = 0
        self._plain = made
        if self._kind == "peft":
            from peft import PeftModel

            told = {"autocast_adapter_dtype": False}  # or the adapters stay in float32
            made = PeftModel.from_pretrained(made, self._folder / "each-0", adapter_name="each-0", **told)
            for i in range(1, MANY):
                made.load_adapter(self._folder / f"each-{i}", adapter_name=f"each-{i}", **told)
        self._model = made.to(PLACE, torch.float16).eval()

    def _generate(self, case: str, new: int, attention: str, cache: str) -> int:
        import torch

        rows, adapters, _ = CASES[case]
        ids = self._prompts[:rows]
        names = {"adapter_names": [f"each-{i}" for i in range(rows)]} if adapters == "each" else {}
        self._plain.set_attn_implementation(attention)
        with torch.inference_mode():
            out = self._model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new,
                                       do_sample=False, cache_implementation=cache, **names)  # fmt: skip
        return sum(map(len, out[:, PROMPT:].tolist()))

    def _fastest(self, case: str) -> tuple[str, str]:
        """The attention and the cache that write fastest here, of those that work: the better of two, after two first."""
        taken: dict[tuple[str, str], float] = {}
        for way in WAYS:
            try:
                tries = [seconds(partial(self._generate, case, TRIED, *way))[0] for _ in range(4)]
            except Exception as e:
                print(
                    f"{self._kind}, {case}, {', '.join(way)}: {type(e).__name__}, left out", file=sys.stderr
                )
                self._load()  # after a call that failed PEFT goes on with its adapter_names
                continue
            taken[way] = min(tries[2:])
        return min(taken, key=taken.__getitem__)


def seconds(work: Callable[[], int]) -> tuple[float, int]:
    """How long it took to the end on the GPU, and the tokens."""
    synchronize()
    begun = time.perf_counter()
    tokens = work()
    synchronize()
    return time.perf_counter() - begun, tokens


def synchronize() -> None:
    import torch

    torch.cuda.synchronize()


def allocated() -> float:
    """MB on the GPU."""
    import torch

    return torch.cuda.memory_allocated() / 1e6


# --- the table ----------------------------------------------------------------------


def rows_of(speeds: Speeds) -> list[dict[str, Any]]:
    rows = []

    def row(what: str, mine: tuple[str, str], theirs: tuple[str, str], bar: float | None = None) -> None:
        runs = list(zip(speeds[mine], speeds[theirs], strict=True))
        middle = [statistics.median(r[i] for r in runs) for i in (0, 1)]
        rows.append({"what": what, "ours": middle[0], "peer": middle[1], "unit": "tokens/s",
                     "ratio": statistics.median(a / b for a, b in runs), "bar": bar,
                     "better": "lower" if "cost of" in what else "higher", "runs": runs})  # fmt: skip

    for kind, cases in PEERS.items():
        for case in cases:
            for mine in (f"ours {form}" for form in FORMATS):
                theirs = f"{kind} fp16"
                row(f"{case}: {mine}, {theirs}", (mine, case), (theirs, case), BARS.get((case, mine, theirs)))
    for form in FORMATS:
        mine = f"ours {form}"
        row(f"{mine}: cost of a mix, {SAME} over {MANY}", (mine, SAME), (mine, MIXED), 1.15)
        row(f"{mine}: cost of a mix, {SAME_ALL} over {MANY}", (mine, SAME_ALL), (mine, MIXED_ALL), 1.35)
        row(f"{mine}: cost of an adapter, {BASE} over {SAME}", (mine, BASE), (mine, SAME))
    for case in CASES:
        row(f"{case}: ours fp16, the model fp16 alone", ("ours fp16", case), ("model fp16", case))
    return rows


def line_of(row: dict[str, Any]) -> str:
    ratios = [a / b for a, b in row["runs"]]
    bar = f"  bar {row['bar']:g}" if row["bar"] else ""
    return (f"{row['what']:<78} {row['ours']:8,.0f} {row['peer']:8,.0f} {row['unit']} "
            f"{row['ratio']:6.2f}x ({min(ratios):.2f} to {max(ratios):.2f}){bar}")  # fmt: skip


def writers_of(folder: Path) -> tuple[dict[str, tuple[Write, list[str]]], dict[str, str], dict[str, float]]:
    """Who writes which cases; how the peers run; MB of each."""
    import torch

    told = [text_of(folder / "base", PROMPT, seed) for seed in range(MANY)]
    texts, prompts = [t for t, _ in told], torch.tensor([ids for _, ids in told], device=PLACE)
    makers: dict[str, tuple[Callable[[], Any], list[str]]] = {f"ours {f}": (partial(ours, f, folder, texts), list(CASES)) for f in FORMATS}  # fmt: skip
    makers["model fp16"] = (partial(model, "fp16", folder, prompts), list(CASES))
    makers |= {f"{kind} fp16": (partial(Peer, kind, folder, prompts), cases) for kind, cases in PEERS.items()}
    writers: dict[str, tuple[Write, list[str]]] = {}
    said: dict[str, str] = {}
    memory: dict[str, float] = {}
    for who, (make, cases) in makers.items():
        before = allocated()
        made = make()
        memory[who] = round(allocated() - before, 1)
        if isinstance(made, Peer):
            said[who] = "; ".join(f"{case}: {', '.join(way)}" for case, way in made.best.items())
            made = made.write
        writers[who] = (made, cases)
        print(f"{who} is ready", file=sys.stderr)
    return writers, said, memory


def report(folder: Path, rounds: int, new: int) -> str:
    import torch

    writers, said, memory = writers_of(folder)
    speeds: Speeds = {(who, case): [] for who, (_, cases) in writers.items() for case in cases}
    for turn in range(rounds + 1):
        for who, case in sorted(speeds, key=lambda pair: list(CASES).index(pair[1])):  # a case by all in turn
            taken, tokens = seconds(partial(writers[who][0], case, new))
            if tokens != CASES[case][0] * new:
                raise SystemExit(f"{who} wrote {tokens} tokens in {case!r}, not {new} a row")
            speeds[who, case] += [tokens / taken] if turn else []  # the first warms up
        print(f"round {turn} of {rounds}", file=sys.stderr)
    place = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {machine()}"
    rows = rows_of(speeds)
    written("generate_gpu.json", {"machine": place, "prompt": PROMPT, "new": new, "memory": memory, "said": said, "rows": rows})  # fmt: skip
    held = ", ".join(f"{who} {mb:,.0f} MB" for who, mb in memory.items())
    head = f"{place}; {PROMPT} tokens of prompt, every row wrote {new}; on the GPU: {held}"
    return "\n".join(
        [head, *(f"{who} ran with {text}" for who, text in said.items()), *(line_of(r) for r in rows)]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--new", type=int, default=NEW, help="tokens each row writes")
    asked = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("generate_gpu needs a CUDA GPU, and torch sees none here; on a CPU: make bench-generate")  # fmt: skip
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="adapterkit-bench-") as scratch:
        os.environ["ADAPTERKIT_CACHE"] = f"{scratch}/cache"
        prepared(data_folder(), Path(scratch), many=MANY)
        print(report(Path(scratch), asked.rounds, asked.new))


if __name__ == "__main__":
    main()
