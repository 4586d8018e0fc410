"""How a request writes. Names and meanings are those of transformers' GenerationConfig.

Presence and frequency penalty and logit bias are OpenAI's. The draw itself is
in ``drawing``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol

from adapterkit.errors import UsageProblem, nearest
from adapterkit.generation.drawing import draw as draw
from adapterkit.recipe.bias import parse_bias
from adapterkit.recipe.keys import keys
from adapterkit.recipe.schema import SampleSpec

Bias = tuple[tuple[int | str, float], ...]  # (id, or the text of a token), and what is added to its score


class Encoder(Protocol):
    """What turns the texts of tokens into ids."""

    @property
    def size(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class Sampling:
    """How one request writes; the defaults are those of the recipe's ``sample``."""

    temperature: float = keys()["sample.temperature"].default
    top_k: int = keys()["sample.top_k"].default
    top_p: float = keys()["sample.top_p"].default
    min_p: float = keys()["sample.min_p"].default
    typical_p: float = keys()["sample.typical_p"].default
    repetition_penalty: float = keys()["sample.repetition_penalty"].default
    presence_penalty: float = keys()["sample.presence_penalty"].default
    frequency_penalty: float = keys()["sample.frequency_penalty"].default
    no_repeat_ngram_size: int = keys()["sample.no_repeat_ngram_size"].default
    logit_bias: Bias = ()
    max_new_tokens: int = keys()["sample.max_new_tokens"].default
    stop: tuple[str, ...] = ()

    def with_(self, **changes: Any) -> Sampling:
        """A copy with some settings changed, checked by the recipe's limits.

        Args:
            changes: ``stop`` may be one text or several; ``logit_bias`` a
                mapping of ids or texts of one token, or texts such as "262=-5".

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
        stop = changes.get("stop", self.stop) or ()
        if not isinstance(stop, str) and not (
            isinstance(stop, Iterable) and all(isinstance(s, str) for s in stop)
        ):
            raise UsageProblem(f"stop is {stop!r}; it must be a text or several.", hint='stop=["\\n\\n"]')
        changes["stop"] = (stop,) if isinstance(stop, str) else tuple(s for s in stop if s)
        written = _written(changes.pop("logit_bias", self.logit_bias))
        changed = replace(self, **changes, logit_bias=())
        changed._check(written)
        return replace(changed, logit_bias=_biases(written))

    def in_ids(self, encoder: Encoder) -> Sampling:
        """A copy whose biases are for ids, as the draw needs them.

        Raises:
            UsageProblem: a text that is not one token, or an id that is none.
        """
        if not self.logit_bias:
            return self
        return replace(self, logit_bias=tuple((_id(t, encoder), bias) for t, bias in self.logit_bias))

    def _check(self, logit_bias: list[str]) -> None:
        from pydantic import ValidationError

        told = {k: v for k, v in asdict(self).items() if k != "stop"} | {"logit_bias": logit_bias}
        try:
            SampleSpec.model_validate(told)
        except ValidationError as e:
            error = e.errors()[0]
            name = str(error["loc"][0])
            key = keys()[f"sample.{name}"]
            limit = f"{name} is {told[name]!r}; it must be {key.allowed}."
            if error["type"] == "value_error":  # a rule of ours, which says more than the kind
                limit = f"{name} has {error['ctx']['error']}."
            default = key.default if key.default != [] else "262=-5"
            raise UsageProblem(limit, hint=f"{key.flag} {default}") from None


def from_spec(spec: SampleSpec) -> Sampling:
    """The settings that travel with an adapter."""
    own = {f.name: getattr(spec, f.name) for f in fields(Sampling) if f.name != "stop"}
    return Sampling(**own | {"logit_bias": _biases(spec.logit_bias)})


def _written(bias: Any) -> list[str]:
    """Biases in the form of a recipe, ``TOKEN=BIAS``, whatever way they were given."""
    if isinstance(bias, str) or not isinstance(bias, Iterable):
        return [] if bias is None else [str(bias)]
    pairs: Iterable[Any] = bias.items() if isinstance(bias, Mapping) else bias
    return ["{}={}".format(*pair) if isinstance(pair, tuple) else str(pair) for pair in pairs]


def _biases(written: Iterable[str]) -> Bias:
    """Each token once, the last word on it counts."""
    return tuple(dict(parse_bias(text) for text in written).items())


def _id(token: int | str, encoder: Encoder) -> int:
    if isinstance(token, int):
        if token >= encoder.size:
            raise UsageProblem(
                f"logit_bias has the id {token}; this base has {encoder.size:,} tokens.",
                hint=f"--logit-bias {encoder.size - 1}=-5",
            )
        return token
    ids = encoder.encode(token)
    if len(ids) != 1:
        raise UsageProblem(
            f"logit_bias has {token!r}, which is {len(ids)} tokens, not one.",
            hint="give each of them by its id: " + " ".join(f"--logit-bias {i}=-5" for i in ids[:4]),
        )
    return ids[0]
