"""How likely each token was, and what else could have come.

The numbers are the model's own: the natural logarithm of the softmax, in
float32, of its logits before temperature, penalties and cuts. So they do not
depend on how a token was drawn, and compare between settings and adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapterkit.errors import UsageProblem
from adapterkit.generation.gpt2 import GPT2
from adapterkit.generation.route import Route
from adapterkit.model.tokenizer import END, Tokenizer

MOST = 20  # alternatives at a place, OpenAI's limit
PIECE = 64  # positions of a prompt whose softmax is taken at once


@dataclass(frozen=True, slots=True)
class Scored:
    """A token and the likeliest ones at its place, in ids; of a prompt's first token nothing is known."""

    token: int
    logprob: float | None
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Alternative:
    """A token that could have come."""

    text: str
    id: int
    logprob: float  # in nats


@dataclass(frozen=True)
class TokenLogprob:
    """A token of a text, how likely the model found it, and the likeliest tokens at its place.

    Attributes:
        text: of this token alone; half a character is shown as U+FFFD.
        logprob: in nats; None for the first token of a prompt, which nothing precedes.
        top: as many as were asked for, the likeliest first; the token itself may be among them.
    """

    text: str
    id: int
    logprob: float | None
    top: tuple[Alternative, ...] = ()


def check(logprobs: object, echo: bool) -> int | None:
    """The number of alternatives that is asked for; None is none of it.

    Raises:
        UsageProblem: no number from 0 to MOST, or an echo with nothing to tell of the prompt.
    """
    if logprobs is None:
        if echo:
            raise UsageProblem(
                "echo=True tells how likely the prompt's tokens are, so it needs logprobs.",
                hint="logprobs=0; prompt and text together are Completion.full_text",
            )
        return None
    if not isinstance(logprobs, int) or isinstance(logprobs, bool) or not 0 <= logprobs <= MOST:
        raise UsageProblem(
            f"logprobs is {logprobs!r}; it must be a whole number from 0 to {MOST}.", hint="logprobs=5"
        )
    return logprobs


def scored(logits: Tensor, wanted: Sequence[int | None], tokens: Sequence[int]) -> Sequence[Scored | None]:
    """For each row the score of its token, with as many alternatives as are wanted; None costs nothing.

    Args:
        logits: (b, v) of the model.
        tokens: (b,) what was drawn.
    """
    rows = [i for i, k in enumerate(wanted) if k is not None]
    made: list[Scored | None] = [None] * len(wanted)
    if rows:
        some = logits if len(rows) == len(wanted) else logits[rows]
        counts = [wanted[i] or 0 for i in rows]
        for i, each in zip(rows, _scores(some, [tokens[i] for i in rows], counts), strict=True):
            made[i] = each
    return made


@torch.inference_mode()
def of_prompt(model: GPT2, ids: Sequence[int], route: Route, k: int) -> list[Scored]:
    """The score of each token of a prompt, in one pass without a cache."""
    at = torch.tensor([ids], device=model.wpe.device)
    made = [Scored(ids[0], None)]
    if len(ids) > 1:
        for logits in model.logits_in_pieces(at[:, :-1], route, PIECE):
            after = ids[len(made) : len(made) + len(logits)]
            made += _scores(logits, after, [k] * len(after))
    return made


def told(scores: Sequence[Scored], tokenizer: Tokenizer) -> tuple[TokenLogprob, ...]:
    """The same with texts."""

    def text(token: int) -> str:
        return END if token == tokenizer.end else tokenizer.decode([token])

    return tuple(
        TokenLogprob(
            text(s.token), s.token, s.logprob, tuple(Alternative(text(i), i, p) for i, p in s.likeliest)
        )
        for s in scores
    )


def _scores(logits: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[Scored]:
    """Shapes: logits (n, v); a token and a number of alternatives for each row."""
    logits = logits.float()
    total = logits.logsumexp(-1, keepdim=True)
    own = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None]) - total
    best = logits.topk(min(max(counts), logits.shape[-1]))
    likely = (best.values - total).tolist()
    return [
        Scored(token, logprob, tuple(zip(ids[:k], values[:k], strict=True)))
        for token, k, [logprob], ids, values in zip(
            tokens, counts, own.tolist(), best.indices.tolist(), likely, strict=True
        )
    ]
