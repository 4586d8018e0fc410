"""Base, full fine-tune and extracted adapter on the same unseen text, in float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from adapterkit.data.pack import Rows
from adapterkit.errors import DataError
from adapterkit.evaluation import texts
from adapterkit.evaluation.score import Scorer
from adapterkit.model.base import Base
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.registry.strict import LoraFiles
from adapterkit.registry.version import Version


@dataclass(frozen=True)
class Perplexities:
    """On the full fine-tune's own held-out text."""

    base: float
    full: float
    extracted: float
    tokens: int

    @property
    def kept(self) -> float | None:
        """Share of the full fine-tune's gain, in loss, that the adapter has; None where there was none."""
        gain = math.log(self.base / self.full)
        return math.log(self.base / self.extracted) / gain if gain > 0 else None


def measure(
    version: Version | None, base: Base, files: LoraFiles, say: Callable[[str], None]
) -> Perplexities | None:
    """Base, full fine-tune and adapter on the text that was held out; None where it is not there."""
    if version is None:
        say("perplexity is not measured: a folder comes without a held-out text.")
        return None
    try:
        rows = texts.own(version, base, Tokenizer(base.folder), lambda event: None).rows
    except DataError as e:
        say(f"perplexity is not measured: {e.message}")
        return None
    return _on(rows, version, base, files)


def _on(rows: Rows, version: Version, base: Base, files: LoraFiles) -> Perplexities:
    scorer = Scorer(base, "cpu")
    of_base, of_lora = scorer.loss(rows), scorer.loss(rows, [(files, 1.0)])
    del scorer  # one model at a time
    of_full = Scorer.of_full(version, base, "cpu").loss(rows)
    return Perplexities(math.exp(of_base.mean), math.exp(of_full.mean), math.exp(of_lora.mean), of_base.n)
