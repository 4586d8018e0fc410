"""Many requests at once against an oracle that writes them one at a time.

The oracle is transformers' GPT-2 with an adapter's update, taken out of PEFT,
added to its weights; greedy, without a cache, one request alone. A text counts
as different only from the first token at which the oracle's two likeliest lie
further apart than ``MARGIN``: sums in another order may choose either.

Among them are requests that go wrong: some are cancelled on the way, some end
at a deadline, some have a listener that raises, and some run on an adapter
whose numbers are finite in its file and overflow in the products.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

from adapterkit.generation.engine import Engine
from adapterkit.generation.pages import Loaded
from adapterkit.generation.requests import Request, Ticket
from adapterkit.generation.sampling import Sampling
from tests.conftest import SENTENCES
from tests.make import make_peft_adapter

MARGIN = 1e-3
TARGETS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
RANKS = {"one": 1, "four": 4, "eight": 8, "twenty": 20, "most": 64}
HUGE = "huge"  # finite weights that overflow float32 in the products
NAMES = (*RANKS, HUGE)
Style = tuple[tuple[str, float], ...]


@dataclass
class Asked:
    """A request, and what it should become."""

    prompt: str
    style: Style
    count: int
    cancel_after: int | None = None  # pieces of text
    raise_after: int | None = None  # pieces of text
    seconds: float | None = None  # to its deadline


class Fault(Exception):
    """What a listener raises."""


@dataclass
class Tally:
    """What came of many requests."""

    equal: int = 0
    excused: int = 0
    cancelled: int = 0
    late: int = 0
    raised: int = 0
    overflowed: int = 0
    wrong: list[str] = field(default_factory=list)


class Oracle:
    """One request at a time."""

    def __init__(self, base: Path, folder: Path) -> None:
        self._plain = GPT2LMHeadModel.from_pretrained(base).eval()
        self._state = {k: v.clone() for k, v in self._plain.state_dict().items()}
        self.folders: dict[str, Path] = {}
        self._updates: dict[str, dict[str, torch.Tensor]] = {}
        for i, (name, r) in enumerate(RANKS.items()):
            targets = TARGETS[: 1 + i % 4] if i else TARGETS
            self.folders[name] = make_peft_adapter(folder / name, base, seed=i, r=r, alpha=2.0 * r, targets=targets)  # fmt: skip
            merged = PeftModel.from_pretrained(
                GPT2LMHeadModel.from_pretrained(base), self.folders[name]
            ).merge_and_unload()
            self._updates[name] = {k: v - self._state[k] for k, v in merged.state_dict().items()}
        self.folders[HUGE] = _huge(make_peft_adapter(folder / HUGE, base, seed=9, r=8, targets=TARGETS))
        self._models: dict[Style, GPT2LMHeadModel] = {(): self._plain}
        self._known: dict[tuple[Style, tuple[int, ...], int], tuple[list[int], list[float]]] = {}

    def write(self, style: Style, ids: list[int], count: int, end: int) -> tuple[list[int], list[float]]:
        """Tokens, and before each how far the likeliest was from the next."""
        key = (style, tuple(ids), count)
        if key not in self._known:
            self._known[key] = self._write(self._model(style), ids, count, end)
        return self._known[key]

    def _model(self, style: Style) -> GPT2LMHeadModel:
        if style not in self._models:
            model = GPT2LMHeadModel(self._plain.config).eval()
            state = dict(self._state)
            for name, weight in style:
                state = {k: v + weight * self._updates[name][k] for k, v in state.items()}
            model.load_state_dict(state)
            self._models[style] = model
        return self._models[style]

    @torch.inference_mode()
    def _write(
        self, model: GPT2LMHeadModel, ids: list[int], count: int, end: int
    ) -> tuple[list[int], list[float]]:
        out: list[int] = []
        margins: list[float] = []
        while len(out) < count:
            top = model(input_ids=torch.tensor([ids + out]), use_cache=False).logits[0, -1].topk(2)
            margins.append(float(top.values[0] - top.values[1]))
            out.append(int(top.indices[0]))
            if out[-1] == end:
                break
        return out, margins


def _huge(folder: Path) -> Path:
    """The same adapter with weights so large that their products are infinite."""
    path = folder / "adapter_model.safetensors"
    save_file({k: v * 1e30 for k, v in load_file(path).items()}, path)
    return folder


def styles(draw: random.Random) -> Style:
    """Nothing, one, a strength or a blend."""
    names = list(RANKS)
    if draw.random() < 0.05:
        return draw.choice([((HUGE, 1.0),), ((HUGE, 0.5), ("four", 0.5))])
    kind = draw.randrange(5)
    if kind == 0:
        return ()
    if kind < 3:
        return ((draw.choice(names), 1.0),)
    if kind == 3:
        return ((draw.choice(names), draw.choice([0.5, -0.25, 1.5])),)
    return tuple((name, draw.choice([0.3, 0.7])) for name in draw.sample(names, 2))


def asked(draw: random.Random) -> Asked:
    words = " ".join(draw.sample(SENTENCES, 2)).split()
    prompt = " ".join(words[: draw.randrange(8)])
    cancel = draw.randrange(1, 6) if draw.random() < 0.1 else None
    fault = draw.randrange(1, 6) if draw.random() < 0.07 else None
    # half of them are too late from the start, on a fast machine too
    seconds = draw.choice([0.0, draw.uniform(0, 0.1)]) if draw.random() < 0.07 else None
    return Asked(prompt, styles(draw), draw.randrange(1, 14), cancel, fault, seconds)


def request(one: Asked, loaded: dict[str, Loaded]) -> Request:
    parts = tuple((loaded[name], weight) for name, weight in one.style)
    deadline = None if one.seconds is None else time.perf_counter() + one.seconds
    return Request(
        one.prompt,
        parts,
        Sampling(temperature=0.0, max_new_tokens=one.count),
        0,
        deadline=deadline,
        keeps=parts,
    )


def attend(one: Asked, ticket: Ticket) -> None:
    """Listen to it, and do on the way what is to be done."""
    heard = 0

    def hear(piece: str | None) -> None:
        nonlocal heard
        heard += 1
        if heard == one.cancel_after:
            ticket.cancel()
        if heard == one.raise_after and piece is not None:
            raise Fault(one.prompt)

    ticket.listen(hear)


def end(ticket: Ticket) -> None:
    """Wait for its end, whatever that is."""
    with suppress(Fault):
        ticket.result()


def play(engine: Engine, oracle: Oracle, load: Callable[[str], Loaded], *, seed: int, count: int) -> Tally:
    """Requests at random moments, while adapters are loaded anew and unloaded."""
    draw, tally = random.Random(seed), Tally()
    loaded = {name: load(name) for name in NAMES}
    waiting: list[tuple[Asked, Ticket]] = []
    for _ in range(count):
        one = asked(draw)
        [ticket] = engine.submit([request(one, loaded)])
        attend(one, ticket)
        waiting.append((one, ticket))
        if draw.random() < 0.05:  # a new version of one while its requests run, in pages that another left
            name = draw.choice(NAMES)
            engine.unload(loaded[name])
            loaded[name] = load(name)
        while len(waiting) > draw.randrange(1, 40):
            done = waiting.pop(0)
            end(done[1])
            judge(*done, engine, oracle, tally)
    for one, ticket in waiting:
        end(ticket)
        judge(one, ticket, engine, oracle, tally)
    for each in loaded.values():
        engine.unload(each)
    return tally


def judge(one: Asked, ticket: Ticket, engine: Engine, oracle: Oracle, tally: Tally) -> None:
    """Compare what was written with what the oracle writes; of one that was cut, what there is of it."""
    prompt = engine.encode(one.prompt, raw=False)
    reason, is_huge = ticket.written.finish_reason, any(name == HUGE for name, _ in one.style)
    tally.cancelled += reason == "cancelled"
    tally.late += reason == "timeout"
    tally.raised += isinstance(ticket.failure, Fault)
    if is_huge:
        tally.overflowed += reason == "error" and ticket.failure is None
        if ticket.ids != prompt or reason not in ("error", "cancelled", "timeout"):
            tally.wrong.append(f"{one}: {ticket.ids[len(prompt) :]} from numbers that overflow")
        return
    if reason == "error" and ticket.failure is None:
        tally.wrong.append(f"{one}: its numbers overflowed")
        return
    wanted, margins = oracle.write(one.style, prompt, one.count, engine.tokenizer.end)
    got = ticket.ids[len(prompt) :] + (
        [engine.tokenizer.end] if ticket.written.stopped_by == "end-of-text" else []
    )
    if reason in ("cancelled", "timeout", "error"):
        wanted = wanted[: len(got)]
    at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), None)
    if at is None and len(got) == len(wanted):
        tally.equal += 1
    elif at is not None and margins[at] <= MARGIN:
        tally.excused += 1
    else:
        tally.wrong.append(f"{one}: {got} instead of {wanted}")
