"""Writing speed: us in three formats, PEFT's and transformers' ``generate``, and llama.cpp where it is installed, in turn.

    ADAPTERKIT_DATA=... python benchmarks/generate.py [--rounds 5] [--new 64]      about twenty minutes on two cores

GPT-2 124M's shapes with random weights, adapters of rank 8 on attn.c_attn, a
prompt of 32 tokens and 64 new ones, the most likely each time, two threads.
What is timed is the whole call: the prompt is read, the cache is made. "ours"
is the public Generator, from texts to texts; "model" is what lies under it,
from ids to ids, as the peers have it. Every worker is a process of its own and
stays loaded; in each round all write once in turn, and the ratios are of one
round. PEFT and transformers first try their attentions and caches on this
machine and take the fastest for each case; "merged" is PEFT with its one
adapter added to the weights. Without ADAPTERKIT_DATA the prompts are of other
words. Writes benchmarks/results/generate.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

PROMPT, NEW, MANY, ROUNDS = 32, 64, 16, 5
TRIED = 16  # tokens that a peer writes to try a way
ALL = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
FORMATS = {
    "fp32": ("fp32", "none"),
    "bf16": ("bf16", "none"),
    "8-bit": ("auto", "8bit"),
}  # precision, quantize
ONE, EIGHT, BASE = "1 row", "8 rows, 8 adapters", "16 rows, base"
EIGHT_SAME = "8 rows, 1 adapter"
SAME, MIXED = "16 rows, 1 adapter", "16 rows, 16 adapters"
SAME_ALL, MIXED_ALL = f"{SAME} on all modules", f"{MIXED} on all modules"
BARE = "16 rows, base, no adapter loaded"
# what -> rows, adapters of each row: one, each its own, none; kind of adapter
CASES = {ONE: (1, "one", "each"), EIGHT: (8, "each", "each"), EIGHT_SAME: (8, "one", "each"), BASE: (MANY, "none", "each"), BARE: (MANY, "bare", "each"),
         SAME: (MANY, "one", "each"), MIXED: (MANY, "each", "each"),
         SAME_ALL: (MANY, "one", "all"), MIXED_ALL: (MANY, "each", "all")}  # fmt: skip
UNDER = [ONE, BASE, MIXED]  # cases of the model alone
PEERS = {
    "peft fp32": [ONE, MIXED], "peft bf16": [ONE, MIXED], "merged fp32": [ONE], "merged bf16": [ONE],
    "transformers fp32": [ONE, BASE], "transformers bf16": [ONE, BASE],
}  # fmt: skip
LLAMA = "llama.cpp q8_0"
Write = Callable[[str, int], int]  # a case, new tokens of each row -> of all


# --- the workers: write once whenever they are told to ------------------------------


def worker(who: str, folder: Path) -> None:
    import torch

    torch.set_num_threads(2)
    kind = who.split()[0]
    write, said = {"ours": ours, "model": model, "llama.cpp": llama}.get(kind, peer)(who, folder)
    answer(said=said)
    for line in sys.stdin:
        begun = time.perf_counter()
        new, case = line.strip().split(maxsplit=1)
        tokens = write(case, int(new))
        answer(seconds=time.perf_counter() - begun, tokens=tokens)


def ours(who: str, folder: Path) -> tuple[Write, str]:
    """The public Generator, one with every adapter loaded and one with none."""
    from adapterkit import Generator

    precision, quantize = FORMATS[who.split()[1]]
    told = {"registry": folder / "registry", "device": "cpu", "precision": precision, "quantize": quantize}
    bare, full = Generator(folder / "base", **told), Generator(folder / "base", **told)
    full.load(*(f"{kind}-{i}" for kind in ("each", "all") for i in range(MANY)))
    texts = json.loads((folder / "prompts.json").read_text())["texts"]

    def write(case: str, new: int) -> int:
        rows, adapters, kind = CASES[case]
        names = [f"{kind}-{i if adapters == 'each' else 0}" if adapters in ("one", "each") else None for i in range(rows)]  # fmt: skip
        made = (bare if adapters == "bare" else full)(texts[:rows], names, temperature=0, max_new_tokens=new)
        assert all(c.usage.prompt_tokens == PROMPT for c in made)
        return sum(c.usage.new_tokens for c in made)

    return write, full.said


def model(who: str, folder: Path) -> tuple[Write, str]:
    """The model with a bank of pages, without the texts and the draws around it."""
    import torch

    from adapterkit.generation.gpt2 import GPT2
    from adapterkit.generation.load import read_tensors
    from adapterkit.generation.pages import PageBank
    from adapterkit.model.base import locate
    from adapterkit.registry.strict import read_lora

    base, cpu = locate(str(folder / "base")), torch.device("cpu")
    dtype = torch.bfloat16 if who.endswith("bf16") else torch.float32
    gpt2 = GPT2(base.config, read_tensors(base.weights), cpu, dtype, bits=8 * who.endswith("8-bit"))
    bank = PageBank(base.dims, cpu, dtype)
    loaded = [bank.load(read_lora(folder / f"each-{i}", base.dims, "each")) for i in range(MANY)]
    prompts = ids_of(folder)

    def write(case: str, new: int) -> int:
        rows, adapters, _ = CASES[case]
        ids, lengths = prompts[:rows], torch.full((rows,), PROMPT)
        route = bank.route([((loaded[i], 1.0),) if adapters != "none" else () for i in range(rows)])
        cache = gpt2.new_cache(rows, PROMPT + new)
        logits = gpt2.prefill(ids, lengths, cache, route)
        for i in range(new - 1):
            logits = gpt2.step(logits.argmax(-1), lengths + i, cache, route)
        return int(logits.argmax(-1).numel()) * new

    return write, ""


def peer(who: str, folder: Path) -> tuple[Write, str]:
    """transformers' model, or PEFT's with the sixteen adapters of attn.c_attn; a batch of several by ``adapter_names``."""
    import torch
    from transformers import GPT2LMHeadModel

    kind, dtype = who.split()
    made: Any = GPT2LMHeadModel.from_pretrained(folder / "base", dtype={"fp32": "float32", "bf16": "bfloat16"}[dtype])  # fmt: skip
    made.generation_config.eos_token_id = None  # all write to the end
    made.generation_config.pad_token_id = 0
    if kind != "transformers":
        from peft import PeftModel

        made = PeftModel.from_pretrained(made, folder / "each-0", adapter_name="each-0")
        for i in range(1, MANY if kind == "peft" else 1):
            made.load_adapter(folder / f"each-{i}", adapter_name=f"each-{i}")
        if kind == "merged":
            made.merge_adapter()
    made.eval()
    prompts, plain = ids_of(folder), made.get_base_model() if kind != "transformers" else made

    def generate(case: str, new: int, attention: str, cache: str) -> int:
        rows, adapters, _ = CASES[case]
        ids = prompts[:rows]
        names = {"adapter_names": [f"each-{i}" for i in range(rows)]} if adapters == "each" else {}
        plain.set_attn_implementation(attention)
        with torch.inference_mode():
            out = made.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
                                cache_implementation=cache, **names)  # fmt: skip
        return int(out[:, PROMPT:].numel())

    best = {case: fastest(partial(generate, case, TRIED)) for case in PEERS[who]}
    said = "; ".join(f"{case}: {', '.join(way)}" for case, way in best.items())
    return lambda case, new: generate(case, new, *best[case]), said


def fastest(write: Callable[[str, str], int]) -> tuple[str, str]:
    """The attention and the cache that write fastest here, the better of two tries each, in turn after a first."""
    ways = list(product(("sdpa", "eager"), ("dynamic", "static")))
    taken = dict.fromkeys(ways, float("inf"))
    for _ in range(3):
        for way in ways:
            begun = time.perf_counter()
            write(*way)
            taken[way] = min(taken[way], time.perf_counter() - begun)
    return min(taken, key=taken.__getitem__)


def llama(_: str, folder: Path) -> tuple[Write, str]:
    """llama.cpp in 8 bits: rows of several adapters one after the other, rows of one in a batch."""
    from llamacpp import Llama

    made, prompts = Llama(folder, length=PROMPT + NEW), ids_of(folder).tolist()

    def write(case: str, new: int) -> int:
        if case == ONE:
            return len(made.one(prompts[0], 0, new))
        wrote = made.styles(prompts[:8], new) if case == EIGHT else made.eight(prompts[:8], 0, new)
        return sum(map(len, wrote))

    return write, ""


def ids_of(folder: Path) -> Any:
    import torch

    return torch.tensor(json.loads((folder / "prompts.json").read_text())["ids"])


def answer(**told: Any) -> None:
    print("\n@" + json.dumps(told | {"peak": peak()}), flush=True)


def peak() -> float:
    """Highest memory so far of this process in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1e3
    return 0.0


# --- what they write with -----------------------------------------------------------


def prepared(
    data: Path | None,
    folder: Path,
    *,
    kinds: tuple[str, ...] = ("each", "all"),
    many: int = MANY,
    layers: int = 12,
) -> None:
    """A base of GPT-2's shapes, so many adapters of each kind saved by PEFT, a registry of them, and prompts."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    from adapterkit.registry.store import Registry

    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=layers))
    gpt2.save_pretrained(folder / "base")
    _tokenizer(data, folder / "base")
    registry = Registry(folder / "registry")
    for kind in kinds:
        targets = list(ALL[:1] if kind == "each" else ALL)
        told = LoraConfig(r=8, lora_alpha=16, target_modules=targets, fan_in_fan_out=True, task_type="CAUSAL_LM")  # fmt: skip
        wrapped = get_peft_model(gpt2, told)
        for i in range(many):
            with torch.no_grad():
                for name, parameter in wrapped.named_parameters():
                    if "lora_" in name:
                        parameter.normal_(0, 0.02)
            wrapped.save_pretrained(folder / f"{kind}-{i}")
            registry.add(folder / f"{kind}-{i}", base=str(folder / "base"))
        gpt2 = wrapped.unload()
    texts = [text_of(folder / "base", PROMPT, seed) for seed in range(MANY)]
    (folder / "prompts.json").write_text(
        json.dumps({"texts": [t for t, _ in texts], "ids": [i for _, i in texts]})
    )


def _tokenizer(data: Path | None, base: Path) -> None:
    """GPT-2's own, or without it one of a few hundred tokens."""
    if data is None:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from tests.make import make_tokenizer

        make_tokenizer(base)
        return
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (base / name).write_bytes((data / "gpt2-tokenizer" / name).read_bytes())


def text_of(base: Path, length: int, seed: int) -> tuple[str, list[int]]:
    """A text of words that are a token each, and its ids with the start token before them."""
    from adapterkit.model.tokenizer import Tokenizer

    tokenizer, draw = Tokenizer(base), random.Random(seed)
    ids = [tokenizer.end]
    while len(ids) < length:
        word = tokenizer.decode([at := draw.randrange(tokenizer.size)])
        if re.fullmatch(" [a-z]{2,9}", word) and tokenizer.encode(word) == [at]:
            ids.append(at)
    text = tokenizer.decode(ids[1:])
    assert tokenizer.encode(text) == ids[1:]
    return text, ids


# --- the parent ---------------------------------------------------------------------


class Worker:
    """A process that is loaded and answers lines.

    Args:
        command: after the interpreter.
    """

    def __init__(self, who: str, *command: str) -> None:
        self.who = who
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, env=os.environ | {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self.peak = 0.0
        self.said: str = self._answer().get("said", "")

    def ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._answer()

    def write(self, case: str, new: int) -> float:
        """New tokens a second, all rows of a case writing ``new``."""
        told = self.ask(f"{new} {case}")
        if told["tokens"] != CASES[case][0] * new:
            raise SystemExit(f"{self.who} wrote {told['tokens']} tokens in {case!r}, not {new} a row")
        return float(told["tokens"] / told["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("@"):
                told: dict[str, Any] = json.loads(line[1:])
                self.peak = told["peak"]
                return told
        self._errors.seek(0)
        raise SystemExit(f"a worker ended: {self.who}\n{self._errors.read()[-2000:]}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


Speeds = dict[tuple[str, str], list[float]]  # (who, case) -> tokens a second, a number each round
BARS = {  # (what, ours, peer) -> the least ratio; of the costs the most
    (ONE, "ours 8-bit", "peft fp32"): 6.0, (ONE, "ours bf16", "peft fp32"): 2.5, (ONE, "ours 8-bit", LLAMA): 1.0,
    (EIGHT, "ours 8-bit", LLAMA): 2.0,
}  # fmt: skip


def rows_of(speeds: Speeds) -> list[dict[str, Any]]:
    """The table: the Generator beside each peer, beside the model under it, and beside itself."""
    rows = []

    def row(what: str, mine: tuple[str, str], theirs: tuple[str, str], bar: float | None = None) -> None:
        if mine in speeds and theirs in speeds:
            rows.append(_row(what, list(zip(speeds[mine], speeds[theirs], strict=True)), bar))

    formats = [f"ours {form}" for form in FORMATS]
    for who, case in speeds:
        for mine in formats if who.split()[0] not in ("ours", "model") else ():
            bar = 4.0 if (case, who) == (MIXED, "peft fp32") else BARS.get((case, mine, who))
            row(f"{case}: {mine}, {who}", (mine, case), (who, case), bar)
    for mine in formats:
        for case in UNDER:
            under = mine.replace("ours", "model")
            row(f"{case}: {mine}, the {under} alone", (mine, case), (under, case))
        row(f"{mine}: {BASE}, without any adapter loaded", (mine, BASE), (mine, BARE), 0.97)
        row(f"{mine}: cost of a mix, {SAME} over 16", (mine, SAME), (mine, MIXED), 1.15)
        row(f"{mine}: cost of a mix, {SAME_ALL} over 16", (mine, SAME_ALL), (mine, MIXED_ALL), 1.35)
    return rows


def report(folder: Path, told: dict[str, list[str]], rounds: int, new: int) -> dict[str, Any]:
    workers = [Worker(who, __file__, "--worker", who, str(folder)) for who in told]
    speeds: Speeds = {(who, case): [] for who, cases in told.items() for case in cases}
    try:
        for turn in range(rounds + 1):
            for case in CASES:
                for each in workers:
                    if case in told[each.who]:
                        speed = each.write(case, new)
                        speeds[each.who, case] += [speed] if turn else []  # the first warms up
            print(f"round {turn} of {rounds}", file=sys.stderr)
        peaks, said = {w.who: w.peak for w in workers}, {w.who: w.said for w in workers if w.said}
    finally:
        for each in workers:
            each.close()
    return {"machine": machine(), "prompt": PROMPT, "new": new, "threads": 2, "peak": peaks, "said": said, "rows": rows_of(speeds)}  # fmt: skip


def shown(result: dict[str, Any]) -> str:
    memory = ", ".join(f"{who} {mb:,.0f} MB" for who, mb in result["peak"].items())
    head = f"{result['machine']}; {PROMPT} tokens of prompt, every row wrote {result['new']}, 2 threads; peak memory: {memory}"
    ways = [f"{who} ran with {text}" for who, text in result["said"].items() if not who.startswith("ours")]
    return "\n".join([head, *ways, *(_line(r) for r in result["rows"])])


def written(name: str, result: dict[str, Any]) -> None:
    target = Path(__file__).parent / "results" / name
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")


def _row(what: str, runs: list[tuple[float, float]], bar: float | None) -> dict[str, Any]:
    mine, theirs = (statistics.median(r[i] for r in runs) for i in (0, 1))
    return {"what": what, "ours": mine, "peer": theirs, "unit": "tokens/s", "ratio": statistics.median(a / b for a, b in runs),
            "bar": bar, "better": "lower" if "cost of" in what else "higher", "runs": runs}  # fmt: skip


def _line(row: dict[str, Any]) -> str:
    ratios = [a / b for a, b in row["runs"]]
    bar = f"  bar {row['bar']:g}" if row["bar"] else ""
    return (f"{row['what']:<78} {row['ours']:7,.0f} {row['peer']:7,.0f} {row['unit']} "
            f"{row['ratio']:6.2f}x ({min(ratios):.2f} to {max(ratios):.2f}){bar}")  # fmt: skip


def machine() -> str:
    import torch

    found = next((x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")),
                 platform.processor())  # fmt: skip
    return f"{found}, {os.cpu_count()} cores, torch {torch.__version__}"


def data_folder() -> Path | None:
    place = os.environ.get("ADAPTERKIT_DATA")
    return Path(place).resolve() if place else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--new", type=int, default=NEW, help="tokens each row writes")
    parser.add_argument(
        "--only", default="", help="workers, between commas: 'ours 8-bit,peft fp32'; writes nothing"
    )
    parser.add_argument("--layers", type=int, default=12, help="fewer to see that all runs; writes nothing")
    asked = parser.parse_args()
    if asked.worker:
        worker(asked.worker[0], Path(asked.worker[1]))
        return
    told = (
        {f"ours {form}": list(CASES) for form in FORMATS}
        | {f"model {form}": UNDER for form in FORMATS}
        | PEERS
    )
    with tempfile.TemporaryDirectory(prefix="adapterkit-bench-") as scratch:
        os.environ["ADAPTERKIT_CACHE"] = f"{scratch}/cache"
        prepared(data_folder(), Path(scratch), layers=asked.layers)
        if importlib.util.find_spec("llama_cpp") and importlib.util.find_spec("llamacpp"):
            from llamacpp import prepare

            prepare(Path(scratch))
            told |= {LLAMA: [ONE, EIGHT, EIGHT_SAME]}
        else:
            print("llama.cpp is not here (llama-cpp-python): its rows are left out", file=sys.stderr)
        only = asked.only.split(",") if asked.only else list(told)
        result = report(Path(scratch), {who: told[who] for who in only}, asked.rounds, asked.new)
    print(shown(result))
    if not asked.only and asked.layers == 12:
        written("generate.json", result)


if __name__ == "__main__":
    main()
