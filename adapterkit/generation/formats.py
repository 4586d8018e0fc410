"""In which format a base writes: ``quantize`` auto, none, 8bit or 4bit, and the line that says so.

``auto`` on a CPU is 8-bit where two facts of the machine hold, measured once
and kept in the cache folder: it is faster, with one row and with sixteen, and
it reads a text as float32 does. A base that fits into the processor's cache
gains nothing and stays as it is. The moment's load never decides.
On a GPU ``auto`` takes bits away only where the base would not fit; see ``room``.
"""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adapterkit.cache import cache_folder
from adapterkit.errors import Unsupported
from adapterkit.files import canonical_json, sha256_bytes, write_whole
from adapterkit.generation.aside import aside
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.load import read_tensors
from adapterkit.generation.pages import PageBank
from adapterkit.generation.room import CHOICES, bits_on_gpu, say_on_gpu, weight_bytes
from adapterkit.generation.weights import Matrix, has_byte_products, prepare, prepare8
from adapterkit.model import device as devices
from adapterkit.model import measure, nf4
from adapterkit.model.base import Base, locate
from adapterkit.model.device import Device
from adapterkit.model.quantize import free_memory
from adapterkit.model.tokenizer import Tokenizer

QUANTIZE = ("auto", "none", "8bit", "4bit")
LEAST = 1.2  # times faster with one row, from which auto is 8-bit; with sixteen it must not be slower
WORST = 1.01  # times the perplexity
LARGE = 100_000_000  # bytes of float32 weights, from which they are read from memory at every step
SHAPES = ((768, 2304), (768, 768), (768, 3072), (3072, 768)) * 3 + (
    (768, 16_384),
)  # GPT-2's, a part of its head
KEPT = 2  # how weights are kept and multiplied: other numbers were measured for other ways
SECONDS, ROUNDS, ROWS = 0.3, 25, (1, 16)
LEAST_ROUNDS = 8  # beside other programs most of them are slow; the least needs some that are not
TEXT = 1_000  # characters of each built-in text


@dataclass(frozen=True)
class Facts:
    """8 bits beside float32 on this machine."""

    one: float  # times as fast with one row
    many: float  # and with sixteen
    perplexity: float  # of a text, over that of float32
    agreement: float  # share of positions with the same most likely token

    @property
    def is_better(self) -> bool:
        return self.one >= LEAST and self.many >= 1.0 and self.perplexity <= WORST


@dataclass(frozen=True)
class Format:
    """``device`` and ``bits`` are what ``adapterkit.generation.load.engine`` takes."""

    device: Device
    bits: int  # 0, 8 or 4
    said: str  # what was chosen and why, a line


def choose(base: Base, device: str = "auto", precision: str = "auto", quantize: str = "auto") -> Format:
    """The device and the format of a base's weights.

    Args:
        device, precision: see ``adapterkit.model.device``; a precision that is
            named is never made 8-bit by ``auto`` on a CPU. On a GPU it is the format
            that 8 and 4 bits are computed with.

    Raises:
        Unsupported: on a CPU 4bit, or 8bit with another precision than fp32; 4bit without
            bitsandbytes; and what ``device.choose`` refuses.
    """
    if quantize not in QUANTIZE:
        known = f"{', '.join(QUANTIZE[:-1])} and {QUANTIZE[-1]}"
        raise Unsupported(f"quantize {quantize!r} is not known; there are {known}.")
    place = devices.choose(device, precision)
    if place.place.type == "cpu":
        return _on_cpu(base, place, precision, quantize)
    return on_gpu(base, place, quantize, free_memory(place.place))


def _on_cpu(base: Base, place: Device, precision: str, quantize: str) -> Format:
    if quantize in ("8bit", "4bit"):
        _check(quantize, precision)
        return Format(place, 8, f"{place.said} Weights in 8 bits.")
    if quantize == "none" or precision != "auto" or _float_bytes(base) < LARGE:
        return Format(place, 0, place.said)
    threads = torch.get_num_threads()
    known = aside(lambda: facts(threads))
    return Format(place, 8 * known.is_better, f"{place.said} {_say(known)}")


def on_gpu(base: Base, place: Device, quantize: str, free: int | None) -> Format:
    """The same for a GPU of which so many bytes are free.

    Raises:
        Unsupported: 4 bits without bitsandbytes.
    """
    sizes = {bits: weight_bytes(base, place.precision, bits) for bits in CHOICES}
    bits = bits_on_gpu(quantize, sizes, free)
    if bits == 4:
        nf4.require(bits)
    return Format(place, bits, f"{place.said} {say_on_gpu(bits, quantize, sizes, free, place.precision)}")


def facts(threads: int) -> Facts:
    """As they were measured first on this machine."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(_store(threads).read_bytes())
        return Facts(**{name: float(told[name]) for name in Facts.__annotations__})
    found = Facts(*_speedups(), *_agreement())
    remember(found, threads)
    return found


def remember(found: Facts, threads: int) -> None:
    """Keep facts; where the cache can't be written they are measured each time."""
    store = _store(threads)
    with suppress(OSError):
        os.makedirs(store.parent, exist_ok=True)
        write_whole(store, canonical_json({**measure.machine(threads), **asdict(found)}))


def _store(threads: int) -> Path:
    facts = {**measure.machine(threads), "bytes": has_byte_products(), "kept": KEPT}
    key = sha256_bytes(canonical_json(facts))
    return cache_folder() / "machine" / f"8bit-{key[:32]}.json"


def _check(quantize: str, precision: str) -> None:
    if quantize == "4bit":
        raise Unsupported("4-bit needs CUDA, this is cpu.", hint="--quantize 8bit, or leave --quantize out")
    if precision not in ("auto", "fp32"):
        raise Unsupported(
            f"8-bit weights are computed with in fp32 on a CPU, not {precision}.",
            hint="leave --precision out",
        )


def _float_bytes(base: Base) -> int:
    """Of what a step reads: the matrices and the head."""
    dims = base.dims
    return 4 * (dims.layers * 12 * dims.width**2 + int(base.config["vocab_size"]) * dims.width)


def _say(known: Facts) -> str:
    speed = f"{known.one:.1f}x as fast as float32 with one text, {known.many:.1f}x with 16"
    if not known.is_better:
        return f"Weights as they are: 8 bits were {speed}, at {known.perplexity - 1:+.1%} perplexity."
    same = f"the same next token in {known.agreement:.1%}"
    return f"Weights in 8 bits: {speed}; {known.perplexity - 1:+.1%} perplexity, {same}."


# --- measuring ---


@torch.inference_mode()
def _speedups() -> tuple[float, float]:
    """Seconds of float32 over seconds of 8 bits, in turn; the least of each counts, which load can only raise."""
    draw = torch.Generator().manual_seed(0)
    pairs = [_both(torch.randn(o, i, generator=draw)) for i, o in SHAPES]
    inputs = {(n, i): torch.randn(n, i, generator=draw) for n in ROWS for i, _ in SHAPES}
    found = []
    for n in ROWS:
        least = [math.inf, math.inf]
        begun = time.perf_counter()
        for turn in range(ROUNDS):
            for side in (0, 1):
                at = time.perf_counter()
                for pair, (i, _) in zip(pairs, SHAPES, strict=True):
                    pair[side](inputs[n, i])
                if turn:  # the first product of a shape also makes its kernel
                    least[side] = min(least[side], time.perf_counter() - at)
            if turn >= LEAST_ROUNDS and time.perf_counter() - begun > SECONDS:
                break
        found.append(round(least[0] / least[1], 2))
    one, many = found
    return one, many


def _both(weight: Tensor) -> tuple[Matrix, Matrix]:
    return prepare(weight, None, weight.device, torch.float32), prepare8(weight, None)[0]


def _agreement() -> tuple[float, float]:
    """Perplexity over that of float32 and the share of equal first choices, by the embedded base on built-in texts."""
    base = locate("embedded")
    tensors, tokenizer = read_tensors(base.weights), Tokenizer(base.folder)
    texts = [p for p in resources.files("adapterkit.configs").joinpath("texts").iterdir() if p.name.endswith(".txt")]  # fmt: skip
    ids = [tokenizer.encode(p.read_text(encoding="utf-8")[:TEXT])[: base.context] for p in texts]
    cpu = torch.device("cpu")
    exact, rough = (GPT2(base.config, tensors, cpu, torch.float32, bits=bits) for bits in (0, 8))
    no_pages = PageBank(base.dims, cpu, torch.float32).route([()])
    losses, same, count = [0.0, 0.0], 0, 0
    for row in (torch.tensor([i]) for i in ids):
        both = [m.logits(row, no_pages) for m in (exact, rough)]
        for side, logits in enumerate(both):
            losses[side] += float(F.cross_entropy(logits[0, :-1], row[0, 1:], reduction="sum"))
        same += int((both[0].argmax(-1) == both[1].argmax(-1)).sum())
        count += row.numel()
    return round(math.exp((losses[1] - losses[0]) / (count - len(ids))), 5), round(same / count, 5)
