"""Writing speed: us in three formats, PEFT's and transformers' ``generate``, and llama.cpp where it is installed, in turn.

    ADAPTERKIT_DATA=... python benchmarks/generate.py          about ten minutes on two cores

GPT-2 124M's shapes with random weights, adapters of rank 8 on attn.c_attn, a
prompt of 32 tokens and 64 new ones, the most likely each time, two threads.
What is timed is the whole call: the prompt is read, the cache is made. Every
worker is a process of its own and stays loaded; in each round all write once in
turn, and the ratios are of one round. PEFT and transformers run with sdpa,
their cache and no merged adapter. Writes benchmarks/results/generate.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPT, NEW, MANY, ROUNDS = 32, 64, 16, 5
ALL = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
OURS = ("ours fp32", "ours bf16", "ours 8-bit")
# what -> rows, adapters of each row: one, none, each its own, each its own on all four modules
CASES = {"1 row": (1, "one"), "16 rows, base": (MANY, "none"), "16 rows, 16 adapters": (MANY, "each"),
         "16 rows, 16 adapters on all modules": (MANY, "all")}  # fmt: skip


# --- the workers: write once whenever they are told to ------------------------------


def worker(who: str, folder: Path) -> None:
    import torch

    torch.set_num_threads(2)
    prompts = torch.randint(0, 50_000, (MANY, PROMPT), generator=torch.Generator().manual_seed(1))
    made = {"ours": ours, "peft": peft, "transformers": transformers, "llama.cpp": llama}[who.split()[0]](
        who, folder
    )
    answer(ready=True)
    for line in sys.stdin:
        rows, adapters = CASES[line.strip()]
        begun = time.perf_counter()
        tokens = made(prompts[:rows], adapters)
        answer(seconds=time.perf_counter() - begun, tokens=tokens)


def ours(who: str, folder: Path) -> Any:
    """The model with a bank of pages, without the texts and the draws around it."""
    import torch

    from adapterkit.generation.gpt2 import GPT2
    from adapterkit.generation.load import read_tensors
    from adapterkit.generation.pages import PageBank
    from adapterkit.model.base import locate
    from adapterkit.registry.strict import read_lora

    base, cpu = locate(str(folder / "base")), torch.device("cpu")
    dtype, bits = {"fp32": (torch.float32, 0), "bf16": (torch.bfloat16, 0), "8-bit": (torch.float32, 8)}[who.split()[1]]  # fmt: skip
    model = GPT2(base.config, read_tensors(base.weights), cpu, dtype, bits=bits)
    bank = PageBank(base.dims, cpu, dtype)
    each, wide = (
        [bank.load(read_lora(folder / f"{kind}-{i}", base.dims, kind)) for i in range(MANY)]
        for kind in ("each", "all")
    )

    def write(ids: Any, adapters: str) -> int:
        chosen = {"one": each, "each": each, "all": wide, "none": []}[adapters]
        route = bank.route([((chosen[i], 1.0),) if chosen else () for i in range(len(ids))])
        cache = model.new_cache(len(ids), PROMPT + NEW)
        logits = model.prefill(ids, torch.full((len(ids),), PROMPT), cache, route)
        for i in range(NEW - 1):
            logits = model.step(logits.argmax(-1), torch.full((len(ids),), PROMPT + i), cache, route)
        return int(logits.argmax(-1).numel()) * NEW

    return write


def peft(who: str, folder: Path) -> Any:
    """PEFT's model with the sixteen adapters of attn.c_attn; a batch of several by ``adapter_names``."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(plain(who, folder), folder / "each-0", adapter_name="each-0")
    for i in range(1, MANY):
        model.load_adapter(folder / f"each-{i}", adapter_name=f"each-{i}")
    model.eval()

    def write(ids: Any, adapters: str) -> int:
        names = {"adapter_names": [f"each-{i}" for i in range(len(ids))]} if adapters == "each" else {}
        return generate(model, ids, **names)

    return write


def transformers(who: str, folder: Path) -> Any:
    model = plain(who, folder)
    return lambda ids, _: generate(model, ids)


def plain(who: str, folder: Path) -> Any:
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder / "base", attn_implementation="sdpa",
                                            dtype={"fp32": "float32", "bf16": "bfloat16"}[who.split()[1]]).eval()  # fmt: skip
    model.generation_config.eos_token_id = None  # all write to the end
    model.generation_config.pad_token_id = 50_256
    return model


def generate(model: Any, ids: Any, **names: Any) -> int:
    import torch

    with torch.inference_mode():
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, **names)  # fmt: skip
    return int(out[:, PROMPT:].numel())


def llama(who: str, folder: Path) -> Any:
    """The base as q8_0, made elsewhere: ADAPTERKIT_GGUF names it. It writes one row after the other."""
    from llama_cpp import Llama  # type: ignore[import-not-found]

    model = Llama(os.environ["ADAPTERKIT_GGUF"], n_ctx=PROMPT + NEW, n_threads=2, n_threads_batch=2, verbose=False)  # fmt: skip

    def write(ids: Any, _: str) -> int:
        for row in ids.tolist():
            model.reset()
            model.eval(row)
            for _step in range(NEW - 1):
                model.eval([model.sample(temp=0.0)])
        return len(ids) * NEW

    return write


def answer(**told: Any) -> None:
    print("\n@" + json.dumps(told | {"peak": peak()}), flush=True)


def peak() -> float:
    """Highest memory so far of this process in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1e3
    return 0.0


# --- the parent ---------------------------------------------------------------------


class Worker:
    """A process that is loaded and writes when asked."""

    def __init__(self, who: str, folder: Path) -> None:
        self.who = who
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", who, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self.peak = 0.0
        self._answer()

    def write(self, case: str) -> float:
        """New tokens a second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{case}\n")
        self._process.stdin.flush()
        told = self._answer()
        return float(told["tokens"] / told["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("@"):
                told: dict[str, Any] = json.loads(line[1:])
                self.peak = told["peak"]
                return told
        raise SystemExit(f"a worker ended: {self.who}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def prepared(data: Path | None, folder: Path) -> None:
    """A base of GPT-2's shapes, and sixteen adapters of each kind saved by PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    model.save_pretrained(folder / "base")
    if data is not None:
        for name in ("tokenizer.json", "vocab.json", "merges.txt"):
            (folder / "base" / name).write_bytes((data / "gpt2-tokenizer" / name).read_bytes())
    for kind, targets in (("each", ALL[:1]), ("all", ALL)):
        told = LoraConfig(r=8, lora_alpha=16, target_modules=list(targets), fan_in_fan_out=True, task_type="CAUSAL_LM")  # fmt: skip
        wrapped = get_peft_model(model, told)
        for i in range(MANY):
            with torch.no_grad():
                for name, parameter in wrapped.named_parameters():
                    if "lora_" in name:
                        parameter.normal_(0, 0.02)
            wrapped.save_pretrained(folder / f"{kind}-{i}")
        model = wrapped.unload()


def rows_of(speeds: dict[tuple[str, str], list[float]]) -> list[dict[str, Any]]:
    """The table: each of ours beside each peer, then ours beside ours."""
    rows = []
    for (who, case), theirs in speeds.items():
        if who in OURS:
            continue
        for mine in OURS:
            rows.append(_row(f"{case}: {mine}, {who}", list(zip(speeds[mine, case], theirs, strict=True))))
    for mine in OURS:
        for case in ("16 rows, 16 adapters", "16 rows, 16 adapters on all modules"):
            pairs = list(zip(speeds[mine, "16 rows, base"], speeds[mine, case], strict=True))
            rows.append(_row(f"{mine}: 16 rows of the base, {case}", pairs))
    return rows


def report(folder: Path, peers: dict[str, list[str]]) -> str:
    told = {who: list(CASES) for who in OURS} | peers
    workers = [Worker(who, folder) for who in told]
    speeds: dict[tuple[str, str], list[float]] = {(who, case): [] for who, cases in told.items() for case in cases}  # fmt: skip
    try:
        for turn in range(ROUNDS + 1):
            for case in CASES:
                for each in workers:
                    if case in told[each.who]:
                        speed = each.write(case)
                        speeds[each.who, case] += [speed] if turn else []  # the first warms up
            print(f"round {turn} of {ROUNDS}", file=sys.stderr)
        peaks = {each.who: each.peak for each in workers}
    finally:
        for each in workers:
            each.close()
    rows = rows_of(speeds)
    result = {"machine": _machine(), "prompt": PROMPT, "new": NEW, "threads": 2, "peak": peaks, "rows": rows}
    target = Path(__file__).parent / "results" / "generate.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    memory = ", ".join(f"{who} {mb:,.0f} MB" for who, mb in peaks.items())
    head = f"{_machine()}; {PROMPT} tokens of prompt, {NEW} new, 2 threads; peak memory: {memory}"
    return "\n".join([head, *(_line(r) for r in rows)])


def _row(what: str, runs: list[tuple[float, float]]) -> dict[str, Any]:
    mine, theirs = (statistics.median(r[i] for r in runs) for i in (0, 1))
    return {"what": what, "ours": mine, "peer": theirs, "unit": "tokens/s",
            "ratio": statistics.median(a / b for a, b in runs), "better": "higher", "runs": runs}  # fmt: skip


def _line(row: dict[str, Any]) -> str:
    ratios = [a / b for a, b in row["runs"]]
    return (f"{row['what']:<78} {row['ours']:7,.0f} {row['peer']:7,.0f} {row['unit']} "
            f"{row['ratio']:6.2f}x ({min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip


def _machine() -> str:
    import torch

    model = next((x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")),
                 platform.processor())  # fmt: skip
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", nargs=2)
    asked = parser.parse_args()
    if asked.worker:
        worker(asked.worker[0], Path(asked.worker[1]))
        return
    place = os.environ.get("ADAPTERKIT_DATA")
    peers = {
        "peft fp32": ["1 row", "16 rows, 16 adapters"],
        "peft bf16": ["1 row", "16 rows, 16 adapters"],
        "transformers fp32": ["1 row", "16 rows, base"],
    }
    if importlib.util.find_spec("llama_cpp") and os.environ.get("ADAPTERKIT_GGUF"):
        peers["llama.cpp q8_0"] = ["1 row", "16 rows, base"]
    with tempfile.TemporaryDirectory(prefix="adapterkit-bench-") as scratch:
        prepared(Path(place).resolve() if place else None, Path(scratch))
        print(report(Path(scratch), peers))


if __name__ == "__main__":
    main()
