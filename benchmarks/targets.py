"""Which matrices a LoRA should change, at equal file size: attn, mlp or all, on three styles.

    ADAPTERKIT_DATA=... python benchmarks/targets.py

Trains the embedded base on 100 kB of each text, four passes, with the rank that
makes the files equally large, and prints the best
setting. Writes benchmarks/results/targets.json.
The default of lora.targets was chosen by it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import adapterkit

SIZE = 100_000  # bytes of each text
TEXTS = {
    "shakespeare": ("tinyshakespeare/input.txt", {}),
    "grimm": ("grimm/grimms.txt", {}),
    "jokes": ("dadjokes/jokes.txt", {"document": "line"}),
}
# On a base of width e: attn takes 6e a rank and layer, mlp 10e, all 16e.
SETTINGS = {"attn": 16, "mlp": 10, "all": 6}
RATE = 2e-3


def cut(path: Path, target: Path) -> Path:
    """The first SIZE bytes of a text, to the end of a line."""
    target.write_bytes(path.read_bytes()[:SIZE].rpartition(b"\n")[0] + b"\n")
    return target


def main() -> None:
    place = os.environ.get("ADAPTERKIT_DATA")
    if not place:
        raise SystemExit("ADAPTERKIT_DATA names no folder with tinyshakespeare/, grimm/ and dadjokes/")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for style, (name, keys) in TEXTS.items():
            text = cut(Path(place) / name, Path(scratch) / f"{style}.txt")
            for targets, r in SETTINGS.items():
                version = adapterkit.train(
                    text, name=style, registry=Path(scratch) / "adapters", base="embedded", epochs=4, precision="bf16",
                    lora_targets=targets, lora_r=r, learning_rate=RATE, **keys,
                )  # fmt: skip
                m = version.metrics
                rows.append({"style": style, "targets": targets, "r": r, "rate": RATE, "size": version.size,
                             "perplexity": m.perplexity, "base": m.base_perplexity, "loss": m.loss})  # fmt: skip
                print(
                    f"{style:<12} {targets:<12} r {r:<3} {m.base_perplexity:7.1f} -> {m.perplexity:7.1f}",
                    file=sys.stderr,
                )
    for targets in SETTINGS:
        best = [min(r["loss"] for r in rows if (r["style"], r["targets"]) == (s, targets)) for s in TEXTS]
        each = "  ".join(f"{s} {b:.3f}" for s, b in zip(TEXTS, best, strict=True))
        print(
            f"{targets:<12} r {SETTINGS[targets]:<3} held-out loss, nats a token: {each}   mean {statistics.mean(best):.3f}"
        )
    target = Path(__file__).parent / "results" / "targets.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
