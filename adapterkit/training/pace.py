"""How fast and how large a micro-batch is, by real steps that change nothing.

Measured once per machine, base and kind of training, and kept: how a step is
cut into pieces is then a fact of the machine, not of the moment's load, and
``--plan`` has its figures. Random numbers and weights stay as they were.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapterkit.cache import cache_folder
from adapterkit.data.pack import Rows, stack
from adapterkit.files import canonical_json, sha256_bytes, write_whole

NEAR = 0.95  # of the best speed, which a smaller piece must reach to be taken
SHARE = 0.6  # of the free memory, which a piece may take: a miss is the out-of-memory killer
MOST_TOKENS = {"cpu": 16_384, "cuda": 131_072}  # of a piece; beyond that nothing gets faster


@dataclass(frozen=True)
class Pace:
    """One micro-batch, forwards and backwards."""

    rows: int
    tokens: int  # slots that carry a token
    seconds: float
    bytes: int  # at its peak, above what was held before

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / max(self.seconds, 1e-9)


def paces(
    module: nn.Module, rows: Rows, per_step: int, *, filler: int, place: torch.device, key: dict[str, Any]
) -> list[Pace]:
    """Micro-batches that divide a step, smallest first, up to where more rows bring nothing.

    Args:
        module: a ``PackedLoss`` in training, with its trained parts.
        per_step: rows of an optimizer step.
        key: all that the figures depend on besides the machine.
    """
    store = _store(key | {"rows": per_step}, place)
    found: list[Pace] = []
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = [Pace(**told) for told in json.loads(store.read_bytes())]
    fullest = sorted(range(len(rows)), key=lambda i: -int(rows.pieces.sizes[rows.members(i)].sum()))
    held = begin_peak(place)
    for count in divisors(per_step)[len(found) :]:
        if found and (count * rows.length > MOST_TOKENS[place.type] or _is_enough(found)):
            break
        if found and predicted(found, count) > SHARE * free_bytes(place):
            break  # measured another time, when there is room
        try:
            found.append(measure(module, rows, fullest[:count], filler=filler, place=place, held=held))
        except torch.OutOfMemoryError:
            module.zero_grad(set_to_none=True)
            if not found:
                raise
            break
        with suppress(OSError):
            store.parent.mkdir(parents=True, exist_ok=True)
            write_whole(store, canonical_json([asdict(p) for p in found]))
    return found


def chosen(found: Sequence[Pace], free: int) -> Pace:
    """The smallest piece near the best speed that leaves memory; the smallest of all where none does."""
    fitting = [p for p in found if p.bytes <= SHARE * free] or found[:1]
    best = max(p.speed for p in fitting)
    return next(p for p in fitting if p.speed >= NEAR * best)


def measure(
    module: nn.Module,
    rows: Rows,
    which: Sequence[int],
    *,
    filler: int,
    place: torch.device,
    held: int | None = None,
) -> Pace:
    """The better of two runs of one micro-batch; the first one also makes what is kept.

    Args:
        held: bytes held before the first of several measurements, as an allocator gives little back.
    """
    batch = {k: torch.from_numpy(v).to(place) for k, v in stack([rows[i] for i in which], filler).items()}
    was_training = module.training
    module.train()
    least, most = float("inf"), 0
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        for _ in range(2):
            before = begin_peak(place)
            held = before if held is None else held
            begun = time.perf_counter()
            module(**batch)["loss"].backward()
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            least = min(least, time.perf_counter() - begun)
            most = max(most, peak(place) - held)
            module.zero_grad(set_to_none=True)
    module.train(was_training)
    tokens = int(rows.pieces.sizes[[k for i in which for k in rows.members(i)]].sum())
    return Pace(len(which), tokens, least, most)


def predicted(found: Sequence[Pace], rows: int) -> int:
    """Bytes of a larger piece, by what its rows added so far."""
    last = found[-1]
    if len(found) < 2:
        return last.bytes * rows // last.rows
    before = found[-2]
    # what was given back by the smaller one and taken again hides a part of the growth
    each = max(last.bytes - before.bytes, last.bytes // 2) / (last.rows - before.rows)
    return int(last.bytes + each * (rows - last.rows))


def duration(seconds: float) -> str:
    """``41 s``, ``1 min 30 s``, ``3 h 12 min``."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def divisors(rows: int) -> list[int]:
    """1, then about twice as many each time: the parts of a step that divide it evenly."""
    every = [d for d in range(1, rows + 1) if rows % d == 0]
    taken = every[:1]
    for d in every[1:]:
        if d >= 2 * taken[-1]:
            taken.append(d)
    return taken


def _is_enough(found: Sequence[Pace]) -> bool:
    """The last piece was no faster than the one before by as much as counts."""
    return len(found) > 1 and found[-1].speed * NEAR < max(p.speed for p in found[:-1])


# --- memory -------------------------------------------------------------------


def free_bytes(place: torch.device) -> int:
    from adapterkit.model.quantize import free_memory

    free = free_memory(place)
    if place.type == "cuda":  # what torch holds and does not use can be had too
        free = (free or 0) + torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
    return free if free is not None else 1 << 62


def begin_peak(place: torch.device) -> int:
    """Bytes held now; the peak counts from here on."""
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
        return int(torch.cuda.memory_allocated(place))
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak(place: torch.device) -> int:
    if place.type == "cuda":
        return int(torch.cuda.max_memory_allocated(place))
    return _status("VmHWM")


def _status(name: str) -> int:
    """Bytes of this process by /proc; 0 where there is none, so that memory then decides nothing."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0


def _store(key: dict[str, Any], place: torch.device) -> Path:
    from adapterkit.model.measure import machine

    if place.type == "cuda":
        where: dict[str, Any] = {"gpu": torch.cuda.get_device_name(place), "torch": torch.__version__}
    else:
        where = machine(torch.get_num_threads())
    return cache_folder() / "machine" / f"pace-{sha256_bytes(canonical_json([where, key]))[:32]}.json"
