"""How much faster bfloat16 multiplies than float32 on this CPU, measured once and kept.

Kept in the cache folder by CPU, its flags, torch's version and threads, so that
``precision: auto`` is a fact of the machine and never of the moment's load.
torch is imported only to measure.
"""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from adapterkit.cache import cache_folder
from adapterkit.files import canonical_json, sha256_bytes, write_whole

# (rows, in, out) of GPT-2's largest products over one row of 512 tokens.
SHAPES = ((512, 768, 3072), (512, 3072, 768), (512, 768, 2304))
LEAST = 1.2  # times faster, from which bfloat16 is worth its lower precision
SECONDS, ROUNDS = 0.6, 25


def bf16_speedup(threads: int) -> float:
    """Seconds of float32 over seconds of bfloat16, as it was measured first on this machine."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads(_store(threads).read_bytes())["speedup"])
    speedup = round(measure(), 2)
    remember(speedup, threads)
    return speedup


def remember(speedup: float, threads: int) -> None:
    """Keep a speed-up; where the cache can't be written it is measured each time."""
    store = _store(threads)
    with suppress(OSError):
        os.makedirs(store.parent, exist_ok=True)
        write_whole(store, canonical_json({**machine(threads), "speedup": speedup}))


def measure() -> float:
    """Time the products of both formats in turn; the least of each counts, which load can only raise."""
    import torch

    formats = (torch.float32, torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    pairs = {
        f: [
            (torch.randn(n, i, generator=generator).to(f), torch.randn(i, o, generator=generator).to(f))
            for n, i, o in SHAPES
        ]
        for f in formats
    }
    least = dict.fromkeys(formats, float("inf"))
    begun = time.perf_counter()
    with torch.inference_mode():
        for turn in range(ROUNDS):
            for form in formats:
                at = time.perf_counter()
                for left, right in pairs[form]:
                    left @ right
                if turn:  # the first product of a shape also makes its kernel
                    least[form] = min(least[form], time.perf_counter() - at)
            # one fair turn at least, also where bfloat16 is emulated and takes seconds
            if turn >= 1 and time.perf_counter() - begun > SECONDS:
                break
    return least[torch.float32] / least[torch.bfloat16]


def _store(threads: int) -> Path:
    key = sha256_bytes(canonical_json(machine(threads)))
    return cache_folder() / "machine" / f"bf16-{key[:32]}.json"


def machine(threads: int) -> dict[str, str | int]:
    """What a measurement on this CPU depends on."""
    model, flags = _cpu()
    return {"cpu": model, "flags": flags, "torch": metadata.version("torch"), "threads": threads}


@cache
def _cpu() -> tuple[str, str]:
    """Model and a hash of the instruction sets; where there is no /proc, what the platform says."""
    with suppress(OSError):
        told: dict[str, str] = {}
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            told.setdefault(name.strip(), value.strip())  # of the first core
        flags = told.get("flags") or told.get("Features") or ""
        names = (told.get(k, "") for k in ("vendor_id", "cpu family", "model", "model name", "stepping"))
        return " ".join(names).strip() or platform.machine(), sha256_bytes(flags.encode())
    return f"{platform.processor()} {platform.machine()}", ""
