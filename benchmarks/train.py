"""Training speed and memory: us, and PEFT with transformers' Trainer, one optimizer step each in turn.

    ADAPTERKIT_DATA=... python benchmarks/train.py          about a quarter of an hour on two cores

GPT-2 124M's shapes with random weights, WikiText-2, rows of 512 tokens with
their position ids, LoRA of rank 8 on attn.c_attn, no dropout, 4,096 tokens an
optimizer step, on both sides the same. The peer is first tried in fp32 and
bf16, over a float32 base and over a bfloat16 one, with micro-batches of 1, 2,
4 and 8 rows, and the fastest is taken. Then
both stay loaded, each a process of its own, and take a step in turn, with a
matrix product timed in every round for the share of the machine's peak. Beside
it, without a bar: the peer at its defaults, and two tutorials' full fine-tunes
in real tokens. Writes benchmarks/results/train.json. On CUDA by --device cuda.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

LENGTH, PER_STEP, ROUNDS = 512, 4096, 7
FLOP = 494e6  # of a LoRA step a token: blocks twice, without the lowest c_attn's way back, and the head twice


@dataclass(frozen=True)
class Way:
    """How a worker trains."""

    who: str  # ours or peer
    data: str  # folder of the prepared rows
    base: str
    device: str = "cpu"
    precision: str = "bf16"
    base_dtype: str = "float32"  # the peer's base is loaded in
    batch: int = 1  # rows of a micro-batch
    rows: int = PER_STEP // LENGTH  # of an optimizer step
    dropout: float = 0.0
    full: bool = False
    padded: int = 0  # a line a row, padded to so many tokens, as tutorials do

    @property
    def name(self) -> str:
        base = f" over a {self.base_dtype} base" if self.base_dtype != "float32" else ""
        return f"{self.precision}{base}, micro-batch {self.batch}"


# --- the worker: trains, a step whenever it is told to ------------------------------


def worker(way: Way) -> None:
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    class Stepwise(TrainerCallback):  # type: ignore[misc]
        """Each step waits for a line on stdin and is answered by its seconds and tokens."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not sys.stdin.readline():
                os._exit(0)
            self.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if way.device == "cuda":
                torch.cuda.synchronize()
            answer(seconds=time.perf_counter() - self.begun, tokens=counted.take())

    counted = Counted(way)
    torch.manual_seed(17)
    if way.who == "ours":
        trainer = ours(way, counted, Stepwise())
    else:
        with tempfile.TemporaryDirectory() as scratch:
            arguments = TrainingArguments(
                output_dir=scratch, max_steps=10_000, per_device_train_batch_size=way.batch,
                gradient_accumulation_steps=way.rows // way.batch, learning_rate=1e-4, bf16=way.precision == "bf16",
                fp16=way.precision == "fp16", use_cpu=way.device == "cpu", dataloader_pin_memory=way.device != "cpu",
                save_strategy="no", report_to="none", disable_tqdm=True, logging_strategy="no",
                remove_unused_columns=False, optim="adamw_torch_fused",
            )  # fmt: skip
        trainer = Trainer(model=peer_model(way), args=arguments, train_dataset=counted.rows, data_collator=counted.batch,
                          callbacks=[Stepwise()])  # fmt: skip
        trainer.remove_callback(PrinterCallback)
    answer(ready=True)
    trainer.train()


def peer_model(way: Way) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(way.base, dtype=way.base_dtype, attn_implementation="sdpa", use_cache=False, resid_pdrop=way.dropout,
                                            embd_pdrop=way.dropout, attn_pdrop=way.dropout)  # fmt: skip
    if way.full:
        return model
    told = LoraConfig(r=8, lora_alpha=16, lora_dropout=way.dropout, target_modules=["c_attn"], fan_in_fan_out=True,
                      task_type="CAUSAL_LM")  # fmt: skip
    return get_peft_model(model, told)


def ours(way: Way, counted: Counted, stepwise: Any) -> Any:
    """The very Trainer that ``adapterkit train`` runs, with its forward, loss and arguments."""
    from adapterkit.model import trainable
    from adapterkit.model.base import locate
    from adapterkit.model.device import choose
    from adapterkit.recipe.schema import LoraSpec, Recipe, TrainSpec
    from adapterkit.scoring.loss import PackedLoss
    from adapterkit.training.curve import Curve
    from adapterkit.training.events import ignore
    from adapterkit.training.stop import Stop
    from adapterkit.training.trainer import Steps, Track, _arguments

    train = TrainSpec(batch_size=way.batch, learning_rate=1e-4, epochs=900.0, tokens_per_step=way.rows * LENGTH,
                      max_length=LENGTH, log_steps=10_000, save_steps=10_000, eval_steps=10_000)  # fmt: skip
    recipe = Recipe(
        base=way.base, lora=LoraSpec(alpha=16.0, dropout=0.0, targets=["attn.c_attn"]), train=train
    )
    base, device = locate(way.base), choose(way.device, way.precision)
    wrapped = trainable.attach_lora(trainable.load_model(base, device, recipe), recipe)
    module = PackedLoss(wrapped.get_base_model())
    track = Track(recipe, counted.rows, (), device, 0, "bench", Path(way.data) / "run", False, ignore, ignore)  # type: ignore[arg-type]
    curve = Curve(module, recipe, test=None, glimpse=None, tell=ignore, may_stop=False, stop=Stop())
    curve.start()
    return Steps(track, curve, model=module, args=_arguments(track), train_dataset=counted.rows,
                 data_collator=counted.batch, callbacks=[curve, stepwise])  # fmt: skip


class Counted:
    """Rows, collated as both sides take them; counts the targets handed out."""

    def __init__(self, way: Way) -> None:
        import numpy as np

        with np.load(Path(way.data) / ("lines.npz" if way.padded else "rows.npz")) as told:
            whole = {name: told[name] for name in ("input_ids", "labels", "position_ids")}
        self.padded, self.seen = way.padded, 0
        self.rows: list[dict[str, Any]] = [
            {name: each[i] for name, each in whole.items()} for i in range(len(whole["input_ids"]))
        ]

    def batch(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import numpy as np
        import torch

        made = {k: torch.from_numpy(np.stack([r[k] for r in rows])) for k in rows[0]}
        self.seen += int((made["labels"][:, 1:] != -100).sum())
        if self.padded:  # tutorials pad with the end and mask padding in attention
            made["attention_mask"] = (made.pop("position_ids") >= 0).long()
        return made

    def take(self) -> int:
        seen, self.seen = self.seen, 0
        return seen


def answer(**told: Any) -> None:
    print("\n@" + json.dumps(told | {"peak": peak()}), flush=True)


def peak() -> float:
    """Highest memory so far in MB: of the GPU where there is one, else of this process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated() / 1e6)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1e3
    return 0.0


# --- the parent ---------------------------------------------------------------------


class Trained:
    """A worker that is loaded and takes a step when asked."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(asdict(way))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.peak = 0.0
        self._answer()

    def step(self) -> float:
        """Tokens learned a second."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
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
        raise SystemExit(f"a worker ended: {self.way}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Trained:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def gemm(device: str, precision: str) -> float:
    """FLOP a second of the fastest of GPT-2's matrix products, each tried ten times."""
    import torch

    torch.set_num_threads(2) if device == "cpu" else None
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    n = 1024 if device == "cpu" else 8192
    most = 0.0
    for width, out in ((768, 3072), (3072, 768), (768, 2304), (768, 50257)):
        a, b = (
            torch.randn(n, width, device=device).to(dtype),
            torch.randn(width, out, device=device).to(dtype),
        )
        for _ in range(10):
            begun = time.perf_counter()
            a @ b
            if device == "cuda":
                torch.cuda.synchronize()
            most = max(most, 2 * n * width * out / (time.perf_counter() - begun))
    return most


def prepared(data: Path, folder: Path) -> None:
    """A base of GPT-2's shapes, WikiText-2 packed into full rows, and its lines padded as in tutorials."""
    import numpy as np
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from adapterkit.data.pack import stack
    from adapterkit.data.prepare import prepare
    from adapterkit.model.tokenizer import Tokenizer
    from adapterkit.recipe.schema import DataSpec

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).write_bytes((data / "gpt2-tokenizer" / name).read_bytes())
    text = data / "wikitext2" / "train.txt"
    tokenizer = Tokenizer(folder)
    found = prepare(DataSpec(source=str(text), document="article"), tokenizer, LENGTH)
    order = np.random.default_rng(0).permutation(len(found.train))[:800]
    whole = [row for i in order if len((row := found.train[int(i)]).input_ids) == LENGTH]
    np.savez(folder / "rows.npz", **stack(whole, tokenizer.end))  # type: ignore[arg-type]
    lines = text.read_text(encoding="utf-8").split("\n")
    some = [lines[i] for i in np.random.default_rng(1).permutation(len(lines))[:800]]
    for length in (64, 512):
        (folder / str(length)).mkdir()
        ids = [tokenizer.encode(line)[:length] for line in some]
        padded = np.array([i + [tokenizer.end] * (length - len(i)) for i in ids])
        real = np.array([[0] * len(i) + [-1] * (length - len(i)) for i in ids])
        labels = np.where(real < 0, -100, padded)  # the collator's: padding is masked
        np.savez(folder / str(length) / "lines.npz", input_ids=padded, labels=labels, position_ids=real)


def best_of(peers: list[Way]) -> Way:
    """The fastest of all by one step after the first, the best three by three more, each loaded alone."""
    for count, kept in ((1, 3), (3, 1)):
        speeds = {}
        for way in peers:
            with Trained(way) as each:
                each.step()
                speeds[way] = statistics.median(each.step() for _ in range(count))
                print(f"peer {way.name}: {speeds[way]:,.0f} tokens/s, {each.peak:,.0f} MB", file=sys.stderr)
        peers = sorted(speeds, key=lambda way: -speeds[way])[:kept]
    return peers[0]


def in_turn(a: Trained, b: Trained, measure: Any) -> list[tuple[float, float, float]]:
    a.step(), b.step()
    rounds = []
    for n in range(ROUNDS):
        rounds.append((a.step(), b.step(), measure()))
        print(
            f"round {n + 1} of {ROUNDS}: {rounds[-1][0]:,.0f} and {rounds[-1][1]:,.0f} tokens/s",
            file=sys.stderr,
        )
    return rounds


def alone(way: Way) -> tuple[float, float]:
    with Trained(way) as each:
        each.step()
        return each.step(), each.peak


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    asked = parser.parse_args()
    if asked.worker:
        worker(Way(**json.loads(asked.worker)))
        return
    place = os.environ.get("ADAPTERKIT_DATA")
    if not place:
        raise SystemExit("ADAPTERKIT_DATA names no folder with wikitext2/ and gpt2-tokenizer/")
    with tempfile.TemporaryDirectory(prefix="adapterkit-bench-") as scratch:
        prepared(Path(place).resolve(), Path(scratch))
        print(report(Path(scratch), asked.device))


def report(folder: Path, device: str) -> str:
    peer = Way("peer", str(folder), str(folder), device)
    halves = ["bf16"] if device == "cpu" else ["fp16", "bf16"]
    most = 8 if device == "cpu" else PER_STEP // LENGTH
    batches = [n for n in (1, 2, 4, 8) if n <= most]
    ways = [replace(peer, precision=p, batch=n) for p in ["fp32", *halves] for n in batches]
    ways += [replace(peer, precision="bf16", base_dtype="bfloat16", batch=n) for n in batches]
    best = best_of(ways)
    mine = replace(peer, who="ours", precision=halves[0], batch=2 if device == "cpu" else most)
    with Trained(mine) as a, Trained(best) as b:
        rounds = in_turn(a, b, lambda: gemm(device, mine.precision))
        peaks = a.peak, b.peak
    share = [x * FLOP / g for x, _, g in rounds]
    default = alone(replace(peer, precision="fp32", batch=8, dropout=0.1))
    half = alone(replace(peer, precision=halves[0], batch=8, dropout=0.1))
    tutorials = {n: alone(replace(peer, precision="fp32", data=str(folder / str(n)), full=True, padded=n, batch=8,
                                  rows=8, dropout=0.1)) for n in (64, 512)}  # fmt: skip
    rows = [
        _row("tokens/s", "tokens/s", [(x, y) for x, y, _ in rounds], "higher"),
        _row("peak memory", "MB", [peaks], "lower"),
        _row("share of the GEMM peak", "1", [(s, y * FLOP / g) for s, (_, y, g) in zip(share, rounds, strict=True)], "higher"),
    ]  # fmt: skip
    ours = rows[0]["ours"]
    beside = {
        "peer at its defaults (batch 8, dropout 0.1, fp32)": default,
        f"the same in {halves[0]}": half,
        "tutorial: full, lines padded to 64, batch 8, fp32, real tokens": tutorials[64],
        "tutorial: full, lines padded to 512, batch 8, fp32, real tokens": tutorials[512],
    }
    rows += [_row(what, "tokens/s", [(ours, speed)], "higher") for what, (speed, _) in beside.items()]
    result = {"machine": _machine(device), "peer": best.name, "ours": mine.name, "gemm": statistics.median(g for *_, g in rounds),
              "rows": rows}  # fmt: skip
    target = Path(__file__).parent / "results" / ("train.json" if device == "cpu" else "train-cuda.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    head = f"{_machine(device)}; peer at its best: {best.name}; ours: {mine.name}; GEMM peak {result['gemm'] / 1e9:,.0f} GFLOP/s"
    return "\n".join([head, *(_line(r) for r in rows)])


def _row(what: str, unit: str, runs: list[tuple[float, float]], better: str) -> dict[str, Any]:
    mine, theirs = (statistics.median(r[i] for r in runs) for i in (0, 1))
    return {"what": what, "ours": mine, "peer": theirs, "unit": unit,
            "ratio": statistics.median(a / b for a, b in runs), "better": better, "runs": runs}  # fmt: skip


def _line(row: dict[str, Any]) -> str:
    ratios = [a / b for a, b in row["runs"]]
    spread = f"({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    number = "{:8.2f}" if row["unit"] == "1" else "{:8,.0f}"
    return f"{row['what']:<66} ours {number.format(row['ours'])}   peer {number.format(row['peer'])} {row['unit']:<9} {row['ratio']:.2f}x {spread}"


def _machine(device: str) -> str:
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    model = next((x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")),
                 platform.processor())  # fmt: skip
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}"


if __name__ == "__main__":
    main()
