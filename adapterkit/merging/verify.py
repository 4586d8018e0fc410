"""A merged folder beside the adapter it was made from: is it the same model?

First the live adapter's logits are taken on fixed rows and put into a file
(``take``). Later, with that model gone from memory, a process of its own opens
the folder with plain transformers and compares (``verify``): a broken folder may
crash it, and that must not end ours.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapterkit.errors import AdapterKitError, CheckFailed
from adapterkit.files import sha256_file
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.pages import PageBank
from adapterkit.generation.weights import Linear, Table
from adapterkit.merging.stored import Stored
from adapterkit.model.base import Base
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry.strict import LoraFiles

CHILD = "adapterkit.merging.verify_child"
LIMIT = 2e-3  # that a logit may differ by, in float32
SECONDS = 600.0  # after which a child is ended
TAIL = 2000  # characters of what it said that an error keeps
LENGTH = 32  # tokens of a row at most
TEXTS = (
    "Once upon a time there was a lighthouse keeper who could not sleep, and so he counted the ships.",
    '"Why?" she asked. Nobody answered; the rain went on, as it had for 17 days.',
    "The results are given in table 2 (see also figure 4), and were measured twice on each machine.",
)


@dataclass(frozen=True)
class Reference:
    """What the live adapter computes on fixed rows."""

    texts: tuple[tuple[str, tuple[int, ...]], ...]  # with their tokens
    rows: tuple[tuple[int, ...], ...]  # token ids, each a whole row from position 0
    words: int  # of the vocabulary
    path: Path  # float32 logits (t, v) of each row, back to back
    effect: float  # the most by which the adapter moves a logit of the base


@dataclass(frozen=True)
class Differences:
    """A merged model beside its adapter."""

    logits: float  # the largest difference of any logit
    limit: float  # that it may have
    effect: float  # by which the adapter itself moves a logit at most
    agreement: float  # share of the counted positions with the same most likely token
    counted: int  # positions whose two likeliest tokens are further apart than the limit
    positions: int


def take(base: Base, files: LoraFiles, path: Path) -> Reference:
    """Compute the reference, and put its logits into a file.

    Of the base there is one copy in memory meanwhile, and none afterwards.
    """
    tokenizer, cpu = Tokenizer(base.folder), torch.device("cpu")
    texts = tuple((text, tuple(tokenizer.encode(text))) for text in TEXTS)
    model = _Lean(base.config, Stored(base.weights), cpu, torch.float32)
    bank = PageBank(base.dims, cpu, torch.float32)
    plain, route = bank.route([()]), bank.route([((bank.load(files), 1.0),)])
    words = int(base.config["vocab_size"])
    rows = _rows(texts, tokenizer.end, words, min(LENGTH, base.context))
    effect = 0.0
    with path.open("wb") as file:
        for row in rows:
            ids = torch.tensor([row])
            ours = model.logits(ids, route)[0]
            effect = max(effect, float((ours - model.logits(ids, plain)[0]).abs().max()))
            file.write(_bytes(ours))
    return Reference(texts, rows, words, path, effect)


class _Lean(GPT2):
    """The engine's model with its embeddings in memory once: a merge has no room for the packed copy that is faster."""

    def _wte(self, weight: Tensor, device: torch.device, dtype: torch.dtype, bits: int) -> None:
        self.shared: Tensor | None = None
        self.head = Linear(weight.to(device, dtype), None)
        self.wte = Table(self.head.weight)


def verify(folder: Path, reference: Reference, *, sha256: str = "") -> tuple[Differences, dict[str, str]]:
    """Open a merged folder with transformers, in a process of its own, and compare.

    Args:
        sha256: of its weights as they were meant to be; not compared when empty.

    Returns:
        The differences, and the versions of the tools that opened it.

    Raises:
        CheckFailed: they are over the limit, or the folder can't be opened; with the numbers.
    """
    if sha256 and sha256_file(folder / "model.safetensors") != sha256:
        raise _failed("what is on the disk is not what was written", "")
    told = _ask(folder, reference)
    counted, positions = told["counted"], sum(map(len, reference.rows))
    agreement = 1 - told["others"] / counted if counted else 1.0
    found = Differences(told["difference"], LIMIT, reference.effect, agreement, counted, positions)
    wrong = []
    if not found.logits <= LIMIT:  # nan is not
        wrong.append(f"a logit differs by {found.logits:.2g}, over {LIMIT:g}")
    if told["others"]:
        wrong.append(f"{told['others']} of {counted} most likely tokens are others")
    if told["texts"] != [list(ids) for _, ids in reference.texts]:
        wrong.append("its tokenizer cuts texts otherwise")
    if wrong:
        raise _failed("; ".join(wrong), "", asdict(found))
    return found, told["tools"]


def _rows(
    texts: tuple[tuple[str, tuple[int, ...]], ...], end: int, words: int, length: int
) -> tuple[tuple[int, ...], ...]:
    """The texts as training encodes them, and a row of tokens from all over the vocabulary."""
    spread = tuple(i * words // length for i in range(length))
    return (*((end, *ids)[:length] for _, ids in texts), spread)


def _bytes(logits: Tensor) -> bytes:
    return logits.contiguous().numpy().tobytes()


def _ask(folder: Path, reference: Reference) -> dict[str, Any]:
    asked = {
        "folder": str(folder),
        "reference": str(reference.path),
        "rows": reference.rows,
        "words": reference.words,
        "texts": [text for text, _ in reference.texts],
        "margin": LIMIT,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", CHILD],
            input=json.dumps(asked), capture_output=True, text=True, errors="replace", timeout=SECONDS,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as e:
        raise _failed(f"transformers came to no end with it in {SECONDS:.0f} seconds", "") from e
    if done.returncode < 0:
        raise _failed(f"transformers crashed on it ({signal.Signals(-done.returncode).name})", done.stderr)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise _failed(
            f"transformers can't open it ({last[0][:300] if last else done.returncode})", done.stderr
        )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _failed(why: str, said: str, numbers: dict[str, Any] | None = None) -> AdapterKitError:
    return CheckFailed(
        f"the merged model is not the one it was made from: {why}. Nothing was kept.",
        hint="look at the disk and the adapter (adapterkit verify), then run the same command again",
        code="merge",
        details={**(numbers or {}), "said": said[-TAIL:]},
    )
