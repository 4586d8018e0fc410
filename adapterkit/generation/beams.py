"""Beam search for the Generator, which transformers has and our engine has not.

transformers' own model of the base, loaded when beams are first asked for, with
the page bank on it. Nothing is drawn: of the texts that ``num_beams`` searches
find, the likeliest per token is written, by transformers' rules.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria
from transformers import GPT2LMHeadModel as Plain

from adapterkit.errors import PromptTooLong, UsageProblem
from adapterkit.generation.asking import seed_of
from adapterkit.generation.attached import Chosen
from adapterkit.generation.penalties import has_penalties, penalise
from adapterkit.generation.plain import GPT2LMHeadModel, attach, place
from adapterkit.generation.requests import Written
from adapterkit.generation.sampling import Sampling
from adapterkit.generation.text import TextStream
from adapterkit.generation.writers import Adapter, Writer, Writers
from adapterkit.model.quiet import quiet_transformers
from adapterkit.model.tokenizer import Tokenizer

MOST = 64  # beams
# what draws, or belongs to a text that is written token by token
NOT_HERE = ("temperature", "top_k", "top_p", "min_p", "typical_p", "logprobs", "echo", "timeout")


class Beams:
    """Beam search beside a Generator. Thread-safe; the model takes its float weights' memory once more."""

    def __init__(self, writers: Writers) -> None:
        self._writers = writers
        self._loading = threading.Lock()
        self._model: GPT2LMHeadModel | None = None
        self._tokenizer = Tokenizer(writers.base.folder)

    def write(
        self, prompts: list[str], adapters: list[Adapter], asked: Mapping[str, Any], *, samples: bool = False
    ) -> Iterator[tuple[str, Writer, Sampling, int, Written]]:
        """A text for each prompt, one after the other.

        Args:
            asked: num_beams, and of the keywords of ``Generator``: max_new_tokens, stop, penalties,
                logit_bias, raw, overflow. A seed is told again in the result, and changes nothing.
            samples: several texts of one prompt were asked for.

        Returns:
            Prompt, writer, settings, seed, and what was written.

        Raises:
            UsageProblem: a setting that draws, a number of beams or a seed that is none, or several samples.
            PromptTooLong, Unsupported, NotFound, BaseMismatch, Damaged: as for any call.
        """
        settings = dict(asked)
        beams = _checked(settings, samples)
        seed = seed_of(settings.pop("seed", None))
        raw, cuts = bool(settings.pop("raw", False)), settings.pop("overflow", "error") == "left"
        model = self._ready()
        for prompt, adapter in zip(prompts, adapters, strict=True):
            begun = time.perf_counter()
            with model.adapters.chosen(adapter, *place(model)) as chosen:  # type: ignore[union-attr]
                [writer] = chosen.writers
                how = writer.defaults.with_(**settings).with_(temperature=0.0)
                ids = self._encoded(prompt, raw)
                read = self._cut(ids, how, raw) if cuts else self._whole(ids)
                new = self._search(model, chosen, read, how, beams)
            written = self._written(new, how.stop)
            written.prompt_tokens, written.cut_tokens = len(read), len(ids) - len(read)
            written.seconds = max(time.perf_counter() - begun, 1e-9)
            written.first_token_seconds = written.seconds  # no token is sure before the last
            yield prompt, writer, how, seed, written

    def _ready(self) -> GPT2LMHeadModel:
        with self._loading:
            if self._model is None:
                base, form = self._writers.base, self._writers.form
                base.check()
                with quiet_transformers():
                    model = Plain.from_pretrained(
                        base.folder, use_safetensors=True, local_files_only=True, dtype=form.device.dtype
                    )
                model.to(form.device.place).eval()
                model.generation_config = GenerationConfig()  # the base's own settings are not the adapter's
                self._model = attach(model, base, self._writers.registry, self._writers.force_base)
            return self._model

    def _search(
        self, model: GPT2LMHeadModel, chosen: Chosen, ids: list[int], how: Sampling, beams: int
    ) -> list[int] | None:
        """The new tokens; None where the numbers overflowed."""
        limit = min(how.max_new_tokens, self._writers.base.context - len(ids))
        end = self._tokenizer.end
        config = GenerationConfig(
            num_beams=beams, do_sample=False, max_new_tokens=limit, eos_token_id=end, pad_token_id=end
        )
        given = torch.tensor([ids], device=place(model)[0])
        try:
            written = model.generate(
                given,
                config,
                adapter=chosen,
                attention_mask=torch.ones_like(given),
                logits_processor=[_Penalties(how.in_ids(self._tokenizer), len(ids))],
                stopping_criteria=[_Stops(how.stop, self._tokenizer, len(ids))] if how.stop else [],
            )
        except _Overflowed:
            return None
        return [int(token) for token in written[0, len(ids) :]]

    def _written(self, new: list[int] | None, stop: tuple[str, ...]) -> Written:
        """The text, why it ends, what ended it, and how many tokens that took."""
        if new is None:
            return Written(finish_reason="error")
        stream = TextStream(self._tokenizer, stop)
        by, count = "", 0
        for token in new:
            count += 1
            if token == self._tokenizer.end:
                by = "end-of-text"
            else:
                stream.push(token)
                by = stream.stopped_by
            if by:
                break
        stream.finish()
        return Written(stream.text, "stop" if by else "length", by, new_tokens=count)

    def _encoded(self, prompt: str, raw: bool) -> list[int]:
        ids = self._tokenizer.encode(prompt)
        return ids if raw and ids else [self._tokenizer.end, *ids]

    def _whole(self, ids: list[int]) -> list[int]:
        context = self._writers.base.context
        if len(ids) >= context:
            raise PromptTooLong(
                f"the prompt is {len(ids):,} tokens; this base sees {context:,}, and something must be left to write.",
                hint="shorten it, or --overflow left to give only its end",
                details={"tokens": len(ids), "context": context},
            )
        return ids

    def _cut(self, ids: list[int], how: Sampling, raw: bool) -> list[int]:
        """The end of a prompt that is too long, with its start token, as the engine cuts it."""
        context = self._writers.base.context
        if len(ids) < context:
            return ids
        start = [] if raw else ids[:1]
        return [*start, *ids[len(start) - max(context - how.max_new_tokens, context // 2) :]]


def _checked(settings: dict[str, Any], samples: bool) -> int:
    """The number of beams, taken out of the settings."""
    beams = settings.pop("num_beams")
    if type(beams) is not int or not 1 <= beams <= MOST:
        raise UsageProblem(
            f"num_beams is {beams!r}; it must be a whole number of 1 to {MOST}.", hint="num_beams=4"
        )
    if samples:
        raise UsageProblem(
            "beam search finds one text, so n samples would be the same.", hint="leave num_beams out"
        )
    if settings.get("temperature") == 0:
        del settings["temperature"]
    for name in NOT_HERE:
        if settings.pop(name, None) not in (None, False):
            raise UsageProblem(f"{name} does not go together with num_beams.", hint=f"leave {name} out")
    if settings.get("overflow", "error") not in ("error", "left"):
        raise UsageProblem(
            f"overflow is {settings['overflow']!r}; it is 'error' or 'left'.", hint='overflow="left"'
        )
    return beams


class _Overflowed(Exception):
    """The model's numbers are no numbers any more."""


class _Penalties(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """The engine's penalties and biases, on each beam."""

    def __init__(self, how: Sampling, prompt_tokens: int) -> None:
        self._how, self._prompt_tokens = how, prompt_tokens

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if scores.isnan().any():
            raise _Overflowed
        if has_penalties(self._how):
            for ids, row in zip(input_ids.tolist(), scores, strict=True):
                penalise(row, self._how, ids, self._prompt_tokens)
        return scores


class _Stops(StoppingCriteria):  # type: ignore[misc]
    """A beam ends where its new text holds a stop string."""

    def __init__(self, stop: tuple[str, ...], tokenizer: Tokenizer, prompt_tokens: int) -> None:
        self._stop, self._tokenizer, self._prompt_tokens = stop, tokenizer, prompt_tokens

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        texts = [self._tokenizer.decode(row[self._prompt_tokens :].tolist()) for row in input_ids]
        return torch.tensor([any(s in t for s in self._stop) for t in texts], device=input_ids.device)
