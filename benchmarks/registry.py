"""How long a version takes to be published, and ten thousand to be listed.

    python benchmarks/registry.py [--versions 10000] [--publishes 100]

Publishing: a version of 1.2 MB (GPT-2 124M's sizes, rank 8 on attn.c_attn), each file and
folder flushed to the disk; in turn the same tensors by PEFT's save_pretrained, as it is (it
flushes nothing and overwrites in place) and with every file flushed afterwards; p50 and p95.
Listing: whole processes of ``adapterkit list`` and ``show`` over three shapes of a registry,
the first run (which reads every manifest) apart, beside a process that only imports click.
Writes benchmarks/results/registry.json.
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
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests.versions makes versions without training

RUNS = 5
LAYERS, WIDTH, RANK = 12, 768, 8


def main() -> None:
    asked = _asked()
    with tempfile.TemporaryDirectory(dir=asked.dir) as folder:
        os.environ["ADAPTERKIT_CACHE"] = f"{folder}/cache"
        rows = [*_publishing(Path(folder), asked.publishes), *_listing(Path(folder), asked.versions)]
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    (results / "registry.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--publishes", type=int, default=100)
    parser.add_argument("--dir", help="a folder on the disk to be measured")
    return parser.parse_args()


# --- publishing ---


def _publishing(folder: Path, count: int) -> list[dict[str, Any]]:
    from adapterkit.registry.store import Registry

    registry = Registry(folder / "adapters")
    ways: dict[str, Callable[[int], None]] = {
        "ours": lambda i: _publish(registry, i),
        "PEFT, as it is": _peft(folder / "peft", is_flushed=False),
        "PEFT, flushed": _peft(folder / "flushed", is_flushed=True),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(count + 3):
        for name, write in ways.items():
            begun = time.perf_counter()
            write(i)
            taken[name].append(time.perf_counter() - begun)
    rows = []
    for name, seconds in taken.items():
        ordered = sorted(seconds[3:])
        p50, p95 = statistics.median(ordered), ordered[int(0.95 * len(ordered))]
        print(f"publish 1.2 MB   {name:<16} p50 {1e3 * p50:6.1f} ms   p95 {1e3 * p95:6.1f} ms")
        rows.append({"what": f"publish, {name}", "p50_ms": 1e3 * p50, "p95_ms": 1e3 * p95, "runs": count})
    return rows


def _tensors(seed: int) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    draw = np.random.default_rng(seed)
    made = {}
    for layer in range(LAYERS):
        for side, shape in (("A", (RANK, WIDTH)), ("B", (3 * WIDTH, RANK))):
            name = f"base_model.model.transformer.h.{layer}.attn.c_attn.lora_{side}.weight"
            made[name] = ("F32", shape, draw.standard_normal(shape, np.float32).tobytes())
    return made


def _publish(registry: Any, seed: int) -> None:
    """From tensors in memory to a version that is there, as a run's end does."""
    from adapterkit.registry import tensorfile
    from adapterkit.registry.version import Metrics
    from tests.versions import FINGERPRINTS, adapter_config, manifest_of

    with registry.staging() as folder:
        tensorfile.write(folder / "adapter_model.safetensors", _tensors(seed), {"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(adapter_config()))
        (folder / "README.md").write_text("# noir\n" * 200)
        (folder / "recipe.json").write_text("{}\n" * 500)
        registry.publish(folder, manifest_of("noir", "lora", "gpt2", FINGERPRINTS, Metrics(loss=3.0)))


def _peft(folder: Path, *, is_flushed: bool) -> Callable[[int], None]:
    from adapterkit.model.quiet import quiet_bitsandbytes

    quiet_bitsandbytes()  # which peft imports
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    warnings.simplefilter("ignore")  # the peer's own, which are not what is measured
    sizes = {"n_layer": LAYERS, "n_embd": WIDTH, "n_head": 12, "vocab_size": 64, "n_positions": 16}
    base = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None))
    config = LoraConfig(r=RANK, target_modules=["attn.c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    model = get_peft_model(base, config)

    def write(i: int) -> None:
        values = {
            n: np.frombuffer(bytearray(data), "<f4").reshape(shape)
            for n, (_, shape, data) in _tensors(i).items()
        }
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                stored = name.replace(".default", "")
                if stored in values:
                    parameter.copy_(torch.from_numpy(values[stored]))
        model.save_pretrained(str(folder / str(i)))
        for path in [*(folder / str(i)).iterdir(), folder / str(i), folder] if is_flushed else []:
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)

    return write


# --- listing ---


def _listing(folder: Path, count: int) -> list[dict[str, Any]]:
    rows = []
    side = round(count**0.5)
    for names, each in ((count, 1), (side, count // side), (1, count)):
        root = folder / f"many-{names}"
        _fill(root, names, each)
        newest = f"n0@{each}"
        for argv in (["list"], ["list", "--all"], ["show", newest], ["list", "--json"]):
            first, later, bare = _in_turn([*argv, "--registry", str(root)])
            told = f"{names} names x {each}: {' '.join(argv)}"
            print(
                f"{told:<40} {later:5.2f} s ({later / bare:3.1f}x a bare start); the first time {first:5.2f} s"
            )
            rows.append({"what": told, "seconds": later, "first_seconds": first, "bare_seconds": bare})
    return rows


def _fill(root: Path, names: int, each: int) -> None:
    """Versions written as publish writes them, without the flushes."""
    from adapterkit import files
    from adapterkit.registry import place, version
    from adapterkit.registry.version import Metrics
    from tests.versions import FINGERPRINTS, manifest_of

    place.create(root)
    for i in range(names):
        for number in range(1, each + 1):
            home = root / f"n{i}" / str(number)
            home.mkdir(parents=True)
            metrics = Metrics(3.0 + number / each, 3.5, 20.0, 33.0, 380, "44" * 32, 0.9, 6)
            told = manifest_of(f"n{i}", "lora", "gpt2", FINGERPRINTS, metrics)
            sealed = version.seal(
                {**told, "schema": 1, "min_reader": 1, "created": "2026-11-21T12:00:00+00:00", "version": number,
                 "content": files.sha256_bytes(f"{i}-{number}".encode()), "files": {"README.md": {"size": 3, "sha256": "0" * 64}}}
            )  # fmt: skip
            (home / "manifest.json").write_bytes(files.canonical_json(sealed))
            (home / "recipe.json").write_text('{"origins":{}}')


def _in_turn(argv: list[str]) -> tuple[float, float, float]:
    """Seconds of the first run, and medians of later ones and of a bare start."""
    ours = [sys.executable, "-m", "adapterkit", *argv]
    bare = [sys.executable, "-c", "import click"]
    first = _seconds(ours)
    pairs = [(_seconds(ours), _seconds(bare)) for _ in range(RUNS)]
    return first, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def _seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
