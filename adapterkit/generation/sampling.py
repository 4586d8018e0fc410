"""Choosing the next token. Names and meanings are those of transformers' GenerationConfig.

Each request owns its generator and draws one uniform number a token against
the float32 distribution, so that what stands beside it in a batch does not
change what it draws.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from adapterkit.errors import UsageProblem, nearest
from adapterkit.recipe.keys import keys
from adapterkit.recipe.schema import SampleSpec


@dataclass(frozen=True)
class Sampling:
    """How one request writes; the defaults are those of the recipe's ``sample``."""

    temperature: float = keys()["sample.temperature"].default
    top_k: int = keys()["sample.top_k"].default
    top_p: float = keys()["sample.top_p"].default
    repetition_penalty: float = keys()["sample.repetition_penalty"].default
    max_new_tokens: int = keys()["sample.max_new_tokens"].default
    stop: tuple[str, ...] = ()

    def with_(self, **changes: Any) -> Sampling:
        """A copy with some settings changed, checked by the recipe's limits.

        Raises:
            UsageProblem: an unknown setting or a value out of its limits.
        """
        known = {f.name for f in fields(self)}
        for name in changes:
            if name not in known:
                close = nearest(name, known)
                raise UsageProblem(
                    f"unknown sampling setting {name!r}.",
                    hint=f"did you mean {close!r}?" if close else f"there are: {', '.join(sorted(known))}",
                )
        stop = changes.get("stop", self.stop)
        changes["stop"] = (stop,) if isinstance(stop, str) else tuple(s for s in stop if s)
        changed = replace(self, **changes)
        changed._check()
        return changed

    def _check(self) -> None:
        from pydantic import ValidationError

        told = {k: v for k, v in asdict(self).items() if k != "stop"}
        try:
            SampleSpec.model_validate(told)
        except ValidationError as e:
            name = str(e.errors()[0]["loc"][0])
            raise UsageProblem(
                f"{name} is {told[name]!r}; it must be {keys()[f'sample.{name}'].allowed}.",
                hint=f"{keys()[f'sample.{name}'].flag} {keys()[f'sample.{name}'].default}",
            ) from None


def from_spec(spec: SampleSpec) -> Sampling:
    """The settings that travel with an adapter."""
    return Sampling(**{f.name: getattr(spec, f.name) for f in fields(Sampling) if f.name != "stop"})


def draw(logits: Tensor, sampling: Sampling, seen: Sequence[int], source: random.Random) -> int:
    """The next token of one request.

    Args:
        logits: (v,) float32; left as they are.
        seen: prompt and text so far, for the repetition penalty.
    """
    if sampling.repetition_penalty != 1.0 and seen:
        logits = logits.clone()  # also because the engine's are inference tensors, which can't be written to
        index = torch.tensor(sorted(set(seen)), device=logits.device)
        score = logits[index]
        logits[index] = torch.where(
            score < 0, score * sampling.repetition_penalty, score / sampling.repetition_penalty
        )
    if sampling.temperature == 0:
        return int(logits.argmax())
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < len(logits):
        values, index = logits.topk(sampling.top_k)
    else:
        values, index = logits.sort(descending=True)
    share = values.softmax(-1).double()
    total = share.cumsum(-1)
    if sampling.top_p < 1:  # the likeliest tokens that together reach top_p
        last = int((total < sampling.top_p).sum())
        total = total[: last + 1]
    at = int(torch.searchsorted(total, source.random() * float(total[-1])))
    return int(index[min(at, len(total) - 1)])
