"""From a text to what a training step is fed: us, and datasets.map as tutorials call it, in turn.

    ADAPTERKIT_DATA=... python benchmarks/data.py      5 rounds, cold, medians

Prepares WikiText-2's train split with GPT-2's tokenizer and two threads. Ours
reads, cuts into articles, looks for near-copies, splits, tokenises, packs and
keeps the result; the peer reads lines, tokenises, truncates and pads to 64 or
512 and keeps the result, at its better setting of one process with two threads
or two processes with one. Every run is a fresh process with an empty cache and
is timed after its imports. Then the share of slots that carry real tokens, for
three texts. Writes benchmarks/results/data.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 5
OURS = """
import sys, time
from pathlib import Path
from adapterkit.data.prepare import prepare
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe.schema import DataSpec
source, folder, cache = sys.argv[1:4]
begun = time.perf_counter()
found = prepare(DataSpec(source=source, document="article"), Tokenizer(Path(folder)), 1024, cache=Path(cache))
rows = sum(len(row.input_ids) for row in found.train)
print(time.perf_counter() - begun, found.train.tokens / found.train.slots())
"""
PEER = """
import sys, time
import datasets
from datasets import load_dataset
from transformers import AutoTokenizer
source, folder, cache, length, processes = sys.argv[1:6]
datasets.disable_progress_bars()
begun = time.perf_counter()
tokenizer = AutoTokenizer.from_pretrained(folder)
tokenizer.pad_token = tokenizer.eos_token
lines = load_dataset("text", data_files=source, split="train", cache_dir=cache)
made = lines.map(
    lambda b: tokenizer(b["text"], truncation=True, padding="max_length", max_length=int(length)),
    batched=True, remove_columns=["text"], num_proc=int(processes) if processes != "1" else None)
seconds = time.perf_counter() - begun
real = sum(map(sum, made["attention_mask"]))
print(seconds, real / (len(made) * int(length)))
"""


def once(code: str, *arguments: str, **env: str) -> tuple[float, float]:
    """Seconds and fill of one fresh process with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="adapterkit-bench-") as cache:
        source, folder, *rest = arguments
        command = [sys.executable, "-c", code, source, folder, cache, *rest]
        done = subprocess.run(
            command,
            env=os.environ | env,
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    seconds, fill = done.stdout.split()[-2:]
    return float(seconds), float(fill)


def timed(data: Path) -> dict[str, dict[str, float]]:
    arguments = (str(data / "wikitext2" / "train.txt"), str(data / "gpt2-tokenizer"))
    runs: dict[str, list[tuple[float, float]]] = {}
    for n in range(ROUNDS):
        print(f"round {n + 1} of {ROUNDS}", file=sys.stderr)
        runs.setdefault("ours", []).append(once(OURS, *arguments, RAYON_NUM_THREADS="2"))
        for length in ("64", "512"):
            for processes in ("1", "2"):
                parallel = {"TOKENIZERS_PARALLELISM": "true" if processes == "1" else "false"}
                runs.setdefault(f"{length} {processes}", []).append(
                    once(PEER, *arguments, length, processes, RAYON_NUM_THREADS="2", **parallel)
                )
    return {k: {"seconds": statistics.median(s for s, _ in v), "fill": v[0][1]} for k, v in runs.items()}


def filled(data: Path) -> dict[str, float]:
    """Share of slots that carry real tokens, packed, with the documents auto finds."""
    from adapterkit.data.prepare import prepare
    from adapterkit.model.tokenizer import Tokenizer
    from adapterkit.recipe.schema import DataSpec

    tokenizer = Tokenizer(data / "gpt2-tokenizer")
    texts = {
        "WikiText-2 train": DataSpec(source=str(data / "wikitext2" / "train.txt"), document="article"),
        "gsm8k": DataSpec(source=str(data / "gsm8k" / "train.jsonl")),
        "tinyshakespeare": DataSpec(source=str(data / "tinyshakespeare" / "input.txt")),
    }
    rows = {name: prepare(spec, tokenizer, 1024).train for name, spec in texts.items()}
    return {name: r.tokens / r.slots() for name, r in rows.items()}


def main() -> None:
    place = os.environ.get("ADAPTERKIT_DATA")
    if not place:
        raise SystemExit(
            "ADAPTERKIT_DATA names no folder with wikitext2/, gsm8k/, tinyshakespeare/ and gpt2-tokenizer/"
        )
    data = Path(place).resolve()
    found, fills = timed(data), filled(data)
    ours = found["ours"]["seconds"]
    size = (data / "wikitext2" / "train.txt").stat().st_size / 1e6
    print(
        f"WikiText-2 train, {size:.1f} MB: ours {ours:.2f} s ({size / ours:.1f} MB/s), real tokens {found['ours']['fill']:.1%}"
    )
    for length in ("64", "512"):
        best = min((f"{length} 1", f"{length} 2"), key=lambda k: found[k]["seconds"])
        seconds, how = found[best]["seconds"], "one process" if best.endswith("1") else "two processes"
        print(
            f"datasets.map padded to {length}: {seconds:.2f} s ({how}), real tokens {found[best]['fill']:.1%}; ratio {seconds / ours:.2f}x"
        )
    for name, fill in fills.items():
        print(f"packed, {name}: {fill:.2%} of the slots carry real tokens")
    result = {
        "machine": platform.processor(),
        "python": platform.python_version(),
        "runs": found,
        "fill": fills,
    }
    target = Path(__file__).parent / "results" / "data.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
