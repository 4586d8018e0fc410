"""Texts written while and right after training: shown to the person, and measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapterkit.data.prepare import Prepared
from adapterkit.generation import load as loading
from adapterkit.generation.engine import Engine, Parts, Request
from adapterkit.generation.sampling import from_spec
from adapterkit.model import trainable
from adapterkit.model.base import Base
from adapterkit.model.device import Device
from adapterkit.recipe.schema import Recipe
from adapterkit.registry.strict import Dims, read_lora
from adapterkit.registry.version import Sample
from adapterkit.scoring.samples import longest_copied

PROMPTS = ["", "The", "I"]  # when the recipe names none; "" begins a new document
ENDINGS = 12  # documents begun to see whether they end by themselves
GLIMPSE = 40  # tokens of the text that is written at each test
LARGE = 1_000_000_000  # bytes of a base that is not loaded a second time for that
ROOM = 1.5  # times the usual length of a document, within which it should end


@dataclass(frozen=True)
class Samples:
    """Shown samples with the base's beside them, and what all of them tell."""

    shown: tuple[Sample, ...]
    stops: float | None  # None where documents are too long to expect an end
    copied_words: int
    quote: bool  # the prompts are the user's text, so the samples stay private


def write_samples(engine: Engine, folder: Path, recipe: Recipe, prepared: Prepared, dims: Dims) -> Samples:
    """Write with the weights in a staging folder, read back as strictly as any adapter."""
    parts: Parts = ()
    if recipe.method == "lora":
        parts = ((engine.bank.load(read_lora(folder, dims, "the new adapter")), 1.0),)
    asked = _asked(prepared, engine)
    prompts = recipe.sample.prompts or asked[: len(PROMPTS)] or PROMPTS
    settings = from_spec(recipe.sample)
    usual = int(np.median(prepared.split.train.targets))  # a prompt is given, not written
    expected = usual * ROOM <= min(settings.max_new_tokens, engine.model.context // 2)
    requests = [Request(p, parts, settings, recipe.train.seed) for p in prompts]
    if recipe.method == "lora":
        requests += [Request(p, (), settings, recipe.train.seed) for p in prompts]
    if expected:
        short = settings.with_(max_new_tokens=int(usual * ROOM))
        begun = asked or [""]
        requests += [
            Request(begun[i % len(begun)], parts, short, recipe.train.seed, sample=i)
            for i in range(1, ENDINGS + 1)
        ]
    written = engine.run(requests)
    n = len(prompts)
    by_base = [w.text for w in written[n : 2 * n]] if recipe.method == "lora" else [None] * n
    shown = tuple(Sample(p, w.text, b) for p, w, b in zip(prompts, written, by_base, strict=False))
    endings = written[-ENDINGS:] if expected else []
    own = [s.text for s in shown] + [w.text for w in endings]
    stops = sum(w.finish_reason == "stop" for w in endings) / ENDINGS if expected else None
    copied = longest_copied(own, prepared.documents.texts())
    return Samples(shown, stops, copied, quote=prompts is not recipe.sample.prompts and bool(asked))


class Glimpse:
    """Writes a little with a LoRA as it is now, to see the style come.

    Args:
        wrapped: the model that learns, wrapped by PEFT.
        base: loaded once more, when the first text is written.
    """

    def __init__(self, wrapped: Any, base: Base, device: Device, recipe: Recipe, prepared: Prepared) -> None:
        self._wrapped, self._base, self._device = wrapped, base, device
        self._recipe, self._prepared = recipe, prepared
        self._engine: Engine | None = None
        self._prompt = ""

    def __call__(self) -> Sample:
        if self._engine is None:
            self._engine = loading.engine(self._base, self._device)
            prompts = self._recipe.sample.prompts or _asked(self._prepared, self._engine) or PROMPTS[1:]
            self._prompt = prompts[0]
        engine, spec = self._engine, from_spec(self._recipe.sample)
        loaded = engine.bank.load(trainable.lora_of(self._wrapped))
        settings = spec.with_(max_new_tokens=min(GLIMPSE, spec.max_new_tokens))
        request = Request(self._prompt, ((loaded, 1.0),), settings, self._recipe.train.seed)
        written = engine.run([request])[0]
        engine.bank.unload(loaded)
        return Sample(self._prompt, written.text)


def is_small(base: Base) -> bool:
    """A second copy of it in memory does no harm."""
    return base.weights.stat().st_size <= LARGE


def _asked(prepared: Prepared, engine: Engine) -> list[str]:
    """Prompts of held-out pairs and chats that leave room to answer: what an adapter like that is for."""
    pieces = prepared.split.held_out if len(prepared.split.held_out) else prepared.split.train
    prompts: list[str] = []
    for i in dict.fromkeys(pieces.document.tolist()):
        if len(prompts) == ENDINGS:
            break
        segments = pieces.corpus[i].segments() if pieces.corpus.has_context[i] else []
        if segments and not segments[0][1]:
            prompt = segments[0][0]
            if len(engine.tokenizer.encode(prompt)) <= engine.model.context // 2:
                prompts.append(prompt)
    return prompts
