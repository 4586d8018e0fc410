"""Did a style take? Each adapter's samples are scored under every adapter.

Where a style took, the adapter that wrote a text is the one least surprised by
it; an adapter that learned nothing writes what the base expects as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapterkit.data.corpus import batches, in_memory
from adapterkit.data.pack import Rows, pack
from adapterkit.data.pieces import Pieces
from adapterkit.data.text import Document
from adapterkit.errors import UsageProblem
from adapterkit.evaluation.bench import Bench
from adapterkit.evaluation.chosen import Bases, Chosen, choose
from adapterkit.evaluation.events import Listener, Said, ignore
from adapterkit.generation.generator import Adapter, Generator
from adapterkit.generation.results import Completion
from adapterkit.model.base import Base
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry.store import Registry

SAMPLES, LENGTH = 8, 120  # texts by each adapter, and tokens of each: some 1,000 tokens tell 5 % apart
MARGIN = (
    0.02  # nats a token by which the writer must be ahead; drawn from its own odds, a text always leans to it
)


@dataclass(frozen=True)
class Styles:
    """Losses in nats a token: ``losses[i][j]`` of the samples by writer i under judge j."""

    writers: tuple[str, ...]
    judges: tuple[str, ...]  # the base, then the writers
    losses: tuple[tuple[float, ...], ...]
    tokens: tuple[int, ...]  # of each writer's samples

    def least_surprised(self, writer: int) -> str:
        """Who finds a writer's samples likeliest."""
        return min(zip(self.losses[writer], self.judges, strict=True))[1]

    def took(self, writer: int) -> bool:
        """Whether that is the writer itself, by more than chance."""
        own = self.losses[writer][1 + writer]
        others = [loss for j, loss in enumerate(self.losses[writer]) if j != 1 + writer]
        return own < min(others) - MARGIN

    def as_dict(self) -> dict[str, Any]:
        return {
            "judges": list(self.judges),
            "styles": [
                {"adapter": w, "tokens": n, "losses": list(losses), "took": self.took(i)}
                for i, (w, n, losses) in enumerate(zip(self.writers, self.tokens, self.losses, strict=True))
            ],
        }

    def cells(self) -> list[tuple[str, ...]]:
        """Perplexities, a row a writer; the lowest of a row is marked."""
        head = ("WRITTEN BY", *(f"UNDER {j}" for j in self.judges), "STYLE")
        return [head, *(self._row(i) for i in range(len(self.writers)))]

    def _row(self, i: int) -> tuple[str, ...]:
        lowest, took = self.least_surprised(i), self.took(i)
        cells = (
            f"{math.exp(min(loss, 700)):,.1f}{' *' * (judge == lowest)}"
            for loss, judge in zip(self.losses[i], self.judges, strict=True)
        )
        return (self.writers[i], *cells, "took" if took else "did not take")


def style_test(
    adapters: Sequence[Adapter],
    *,
    registry: Registry,
    base: str | None = None,
    device: str = "auto",
    seed: int = 17,
    on_event: Listener | None = None,
) -> Styles:
    """Let each adapter write, and score what it wrote under the base and every adapter.

    Raises:
        UsageProblem: only the base was named, or adapters of different bases.
        BaseMismatch, Damaged, NotFound, Unsupported.
    """
    tell = on_event or ignore
    chosen = list({c.text: c for c in (choose(registry, a) for a in adapters) if c.parts}.values())
    if not chosen:
        raise UsageProblem("a style test needs an adapter.", hint="adapterkit evaluate NAME --style-test")
    found = _one_base(chosen, Bases(registry, base, lambda line: tell(Said(line))))
    with Generator(found.folder, registry=registry, device=device, precision="fp32") as generator:
        tell(Said(f"Each adapter writes {SAMPLES} texts of up to {LENGTH} tokens."))
        written = [
            generator.samples("", c.text, n=SAMPLES, seed=seed, max_new_tokens=LENGTH, temperature=1.0, top_p=1.0)
            for c in chosen
        ]  # fmt: skip
    tokenizer = Tokenizer(found.folder)
    texts = [_rows(made, tokenizer, found.context) for made in written]
    bench = Bench(found, device, None, tell)
    losses = [
        tuple(bench.loss(judge, rows).mean for judge in (Chosen("base", ()), *chosen)) for rows in texts
    ]
    names = tuple(c.text for c in chosen)
    return Styles(names, ("base", *names), tuple(losses), tuple(rows.targets for rows in texts))


def _one_base(chosen: list[Chosen], bases: Bases) -> Base:
    found = {b.fingerprints: b for b in (bases.of(c, chosen) for c in chosen)}
    if len(found) > 1:
        raise UsageProblem(
            f"a style test compares adapters of one base; these have {', '.join(b.id for b in found.values())}.",
            hint="adapterkit evaluate with the adapters of one base at a time",
        )
    return next(iter(found.values()))


def _rows(made: Sequence[Completion], tokenizer: Tokenizer, context: int) -> Rows:
    """Texts as documents; one that was cut at its length has not learned to end there, so its end is no target."""
    documents = [Document("samples", i, c.text) for i, c in enumerate(made)]
    corpus = in_memory(batches(documents, tokenizer), tokenizer)
    cut = np.array([c.finish_reason != "stop" for c in made], np.int64)
    whole = Pieces.whole(corpus, np.arange(len(corpus)))
    pieces = Pieces(corpus, whole.document, whole.begin, whole.end - cut)
    return pack(pieces, context, tokenizer.end)
