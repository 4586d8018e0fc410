"""Runs requests together: one base, any adapters, each row its own settings.

A ``Batch`` is a group of requests that advance one token at a time. The state
of a batch is its own (cache, route, texts); what is shared, the bank of pages,
is only read while it runs. There is no active adapter.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from adapterkit.errors import PromptTooLong
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.pages import Loaded, PageBank
from adapterkit.generation.sampling import Sampling, draw
from adapterkit.generation.text import TextStream
from adapterkit.model.tokenizer import Tokenizer

Finish = Literal["stop", "length", "cancelled", "error"]
Parts = tuple[tuple[Loaded, float], ...]


@dataclass
class Request:
    """One text to be written. ``parts`` are the adapters with their weights, empty for the base."""

    prompt: str
    parts: Parts
    sampling: Sampling
    seed: int
    sample: int = 0  # which of n samples of one seed
    raw: bool = False  # leave out the start token


@dataclass
class Written:
    """What became of a request."""

    text: str = ""
    finish_reason: Finish = "length"
    stopped_by: str = ""
    prompt_tokens: int = 0
    new_tokens: int = 0
    seconds: float = 0.0
    first_token_seconds: float = 0.0


@dataclass
class _Row:
    """A request on its way."""

    request: Request
    ids: list[int]
    stream: TextStream
    source: random.Random
    limit: int  # new tokens at most
    index: int  # in the batch as it was given
    written: Written = field(default_factory=Written)


class Engine:
    """A prepared base, its tokenizer and the bank of pages."""

    def __init__(self, model: GPT2, tokenizer: Tokenizer, bank: PageBank) -> None:
        self.model, self.tokenizer, self.bank = model, tokenizer, bank
        self.lock = threading.Lock()  # held for one step at a time

    def encode(self, prompt: str, raw: bool) -> list[int]:
        """A prompt is the beginning of a document: encoded with the start token."""
        ids = self.tokenizer.encode(prompt)
        return ids if raw and ids else [self.tokenizer.end, *ids]

    def run(self, requests: Sequence[Request]) -> list[Written]:
        """All requests to their end, in one batch."""
        batch = Batch(self, requests)
        for _ in batch:
            pass
        return batch.written


class Batch:
    """Requests that advance together. Iterating yields (request's index, new text) as it comes."""

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        self._engine = engine
        self._begun = time.perf_counter()
        self._rows = [self._row(i, r) for i, r in enumerate(requests)]
        with engine.lock:  # gathered now: an adapter may be unloaded before the first step
            self._route = engine.bank.route([r.parts for r in requests]).gathered()
        self.written = [row.written for row in self._rows]
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def __iter__(self) -> Iterator[tuple[int, str]]:
        if not self._rows:
            return
        engine, rows = self._engine, self._rows
        device = engine.bank.device
        with engine.lock:
            route = self._route
            longest = max(len(r.ids) for r in rows)
            cache = engine.model.new_cache(len(rows), max(len(r.ids) + r.limit for r in rows))
            ids = torch.tensor([r.ids + [0] * (longest - len(r.ids)) for r in rows], device=device)
            lengths = torch.tensor([len(r.ids) for r in rows], device=device)
            logits = engine.model.prefill(ids, lengths, cache, route)
        while True:
            yield from self._advance(rows, logits)
            alive = [i for i, r in enumerate(rows) if not r.written.seconds]
            if not alive:
                return
            with engine.lock:
                if len(alive) < len(rows):
                    keep = torch.tensor(alive, device=device)
                    rows = [rows[i] for i in alive]
                    cache.keep(keep)
                    route = route.keep(keep)
                last = torch.tensor([r.ids[-1] for r in rows], device=device)
                positions = torch.tensor([len(r.ids) - 1 for r in rows], device=device)
                logits = engine.model.step(last, positions, cache, route)

    def _row(self, index: int, request: Request) -> _Row:
        ids = self._engine.encode(request.prompt, request.raw)
        context = self._engine.model.context
        if len(ids) >= context:
            raise PromptTooLong(
                f"the prompt is {len(ids):,} tokens; this base sees {context:,}, and something must be left to write.",
                hint="shorten it, or give only its end",
                details={"tokens": len(ids), "context": context},
            )
        return _Row(
            request=request,
            ids=ids,
            stream=TextStream(self._engine.tokenizer, request.sampling.stop),
            source=random.Random(f"{request.seed}/{request.sample}"),
            limit=min(request.sampling.max_new_tokens, context - len(ids)),
            index=index,
            written=Written(prompt_tokens=len(ids)),
        )

    def _advance(self, rows: list[_Row], logits: torch.Tensor) -> Iterator[tuple[int, str]]:
        """One drawn token for each row."""
        for row, scores in zip(rows, logits, strict=True):
            piece = self._take(row, scores)
            if piece:
                yield row.index, piece

    def _take(self, row: _Row, scores: torch.Tensor) -> str:
        written = row.written
        if self._cancelled:
            return self._finish(row, "cancelled")
        if not torch.isfinite(scores).all():
            return self._finish(row, "error")
        token = draw(scores, row.request.sampling, row.ids, row.source)
        written.new_tokens += 1
        written.first_token_seconds = written.first_token_seconds or self._elapsed()
        if token == self._engine.tokenizer.end:
            return self._finish(row, "stop", "end-of-text")
        row.ids.append(token)
        piece = row.stream.push(token)
        if row.stream.stopped_by:
            return piece + self._finish(row, "stop", row.stream.stopped_by)
        if written.new_tokens >= row.limit:
            return piece + self._finish(row, "length")
        return piece

    def _finish(self, row: _Row, reason: Finish, by: str = "") -> str:
        rest = row.stream.finish()
        row.written.text = row.stream.text
        row.written.finish_reason, row.written.stopped_by = reason, by
        row.written.seconds = max(self._elapsed(), 1e-9)
        return rest

    def _elapsed(self) -> float:
        return time.perf_counter() - self._begun
