"""A GGUF file run in llama.cpp, and how far its numbers are from ours.

llama.cpp runs in a process of its own: a file it can't read may crash it, and
that must not end ours. Keys and values are float32 there (its default is
float16), so that what differs is the file, and one thing more: its GELU is a
table in float16, whatever the file holds. What that alone does to the reference
is computed on the same rows and allowed for beside the gate: 0.0074 of the
0.0075 by which the embedded base differs as f32.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from adapterkit.errors import AdapterKitError, CheckFailed, Unsupported
from adapterkit.exporting.gguf import Kind
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.route import Route

CHILD = "adapterkit.exporting.llamacpp_child"
SECONDS = 600.0  # after which a child is ended
TAIL = 2000  # characters of what llama.cpp said that an error keeps


@dataclass(frozen=True)
class Gate:
    """What a kind must keep. None: not asked."""

    difference: float | None  # the largest of any logit
    agreement: float  # share of positions with the same most likely token
    perplexity: float | None  # times that of the reference; on trained weights only


GATES: dict[Kind, Gate] = {
    "f32": Gate(2e-3, 1.0, None),
    "f16": Gate(1e-2, 0.995, None),
    "q8_0": Gate(None, 0.95, 1.02),
}


@dataclass(frozen=True)
class Reading:
    """What llama.cpp made of a file."""

    logits: list[Tensor]  # of each row (t, v), float32
    texts: list[list[int]]  # ids of each text, with the start token
    version: str  # of llama-cpp-python
    system: str  # what llama.cpp says of the CPU and of itself


@dataclass(frozen=True)
class Verdict:
    """A file beside the reference."""

    difference: float  # the largest of any logit
    agreement: float  # share of the counted positions with the same most likely token
    counted: int  # positions whose two likeliest tokens are further apart than the difference they may have
    positions: int
    perplexity: float  # of the rows, over the reference's
    missed: tuple[str, ...]  # the gates that it missed, each a short sentence

    @property
    def passed(self) -> bool:
        return not self.missed


def is_there() -> bool:
    """Whether llama-cpp-python is installed."""
    return find_spec("llama_cpp") is not None


def run(
    model: Path,
    rows: Sequence[Sequence[int]] = (),
    *,
    texts: Sequence[str] = (),
    adapter: Path | None = None,
    scale: float = 1.0,
    threads: int = 2,
) -> Reading:
    """Load a file in llama.cpp, and compute what is asked.

    Args:
        rows: token ids whose logits are wanted, each a whole row from position 0.
        texts: to be cut into tokens.
        adapter: a GGUF adapter, applied times ``scale``.

    Raises:
        CheckFailed: llama.cpp could not load it, crashed, or did not come to an end.
        Unsupported: llama-cpp-python is not installed (code ``extra``).
    """
    if not is_there():
        raise Unsupported(
            "llama-cpp-python is not installed, so a GGUF file can't be run here.",
            hint="pip install llama-cpp-python (it is compiled, which takes some minutes)",
            code="extra",
        )
    with tempfile.TemporaryDirectory(prefix="adapterkit-gguf-") as folder:
        out = [Path(folder) / f"{i}.f32" for i in range(len(rows))]
        asked = {
            "model": str(model),
            "adapter": str(adapter) if adapter else None,
            "scale": scale,
            "rows": [list(row) for row in rows],
            "texts": list(texts),
            "out": [str(path) for path in out],
            "threads": threads,
        }
        told = _ask(asked, adapter or model)
        logits = [torch.from_numpy(np.fromfile(path, np.float32)).view(-1, told["words"]) for path in out]
    return Reading(logits, told["texts"], told["version"], told["system"])


def reference(model: GPT2, rows: Sequence[Sequence[int]], route: Route) -> list[Tensor]:
    """Our own logits (t, v) of each row, for a model in float32; the route has one entry for all."""
    return [model.logits(torch.tensor([list(row)]), route)[0] for row in rows]


def allowance(
    model: GPT2, rows: Sequence[Sequence[int]], route: Route, ours: Sequence[Tensor] | None = None
) -> float:
    """The most that llama.cpp's GELU alone moves a logit of the reference, which is computed if not given."""
    plain = reference(model, rows, route) if ours is None else ours
    with GeluTable():
        moved = reference(model, rows, route)
    return max(float((a - b).abs().max()) for a, b in zip(plain, moved, strict=True))


class GeluTable(TorchFunctionMode):
    """Within it GELU is llama.cpp's: from float16 to float16, and nothing or all of x beyond ten."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.gelu:
            return func(*args, **(kwargs or {}))
        x: Tensor = args[0]
        y = func(x.half().float(), **(kwargs or {})).half().float()
        return torch.where(x >= 10, x, torch.where(x <= -10, 0.0, y))


def compare(
    ours: Sequence[Tensor],
    theirs: Sequence[Tensor],
    rows: Sequence[Sequence[int]],
    kind: Kind,
    *,
    allowed: float = 0.0,
    trained: bool = True,
) -> Verdict:
    """Judge the logits of a file by the gate of its kind.

    Args:
        ours: the reference, see ``reference``.
        theirs: llama.cpp's, or ours from what was read back from the file.
        allowed: what is not the file's doing, see ``allowance``; it is added to the gate's difference.
        kind: of the model's file, also when an adapter was added to it.
        trained: whether the weights are; perplexity says nothing on others.

    Raises:
        CheckFailed: logits of other shapes.
    """
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        raise CheckFailed(
            "the export gives logits of other shapes than the base.", hint="export it again", code="export-shape"
        )  # fmt: skip
    gate = GATES[kind]
    a, b = torch.cat(list(ours)), torch.cat(list(theirs))
    difference = float((a - b).abs().max())
    top = a.topk(2).values
    most = None if gate.difference is None else gate.difference + allowed
    counts = top[:, 0] - top[:, 1] > (most or 0.0)
    same = (a.argmax(-1) == b.argmax(-1))[counts]
    agreement = float(same.float().mean()) if len(same) else math.nan
    perplexity = math.exp(_loss(theirs, rows) - _loss(ours, rows))
    missed = []
    if most is not None and not difference <= most:  # nan is not
        missed.append(f"a logit differs by {difference:.2g}, over {most:.2g}")
    if not agreement >= gate.agreement:
        missed.append(f"{agreement:.1%} of the most likely tokens are the same, under {gate.agreement:.1%}")
    if trained and gate.perplexity is not None and not perplexity <= gate.perplexity:
        missed.append(f"perplexity is {perplexity - 1:+.1%}, over {gate.perplexity - 1:+.0%}")
    return Verdict(difference, agreement, len(same), len(a), perplexity, tuple(missed))


def _loss(logits: Sequence[Tensor], rows: Sequence[Sequence[int]]) -> float:
    """Mean loss in nats of each row's tokens but its first."""
    losses = [F.cross_entropy(x[:-1], torch.tensor(list(row[1:])), reduction="sum") for x, row in zip(logits, rows, strict=True)]  # fmt: skip
    return float(sum(losses)) / max(1, sum(len(row) - 1 for row in rows))


def _ask(asked: dict[str, Any], file: Path) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", CHILD],
            input=json.dumps(asked), capture_output=True, text=True, errors="replace", timeout=SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as e:
        raise _failed(file, f"it came to no end in {SECONDS:.0f} seconds", "") from e
    if done.returncode < 0:
        raise _failed(file, f"it crashed ({signal.Signals(-done.returncode).name})", done.stderr)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise _failed(file, last[0] if last else f"it ended with {done.returncode}", done.stderr)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _failed(file: Path, why: str, said: str) -> AdapterKitError:
    return CheckFailed(
        f"llama.cpp can't run {file.name}: {why}.",
        hint="export it again with the base it belongs to",
        code="llama.cpp",
        details={"said": said[-TAIL:]},
    )
