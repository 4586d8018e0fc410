"""What moves the scores of tokens before anything is cut or drawn.

In the order of transformers' ``generate``: logit bias (its ``sequence_bias`` of
one token), repetition penalty, no-repeat n-gram; then, which it has not,
OpenAI's frequency and presence penalties, as servers place them. All of them
hold at temperature 0 too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapterkit.errors import UsageProblem

if TYPE_CHECKING:
    from adapterkit.generation.sampling import Sampling

BANNED = float("-inf")


def has_penalties(sampling: Sampling) -> bool:
    """Whether a request's scores differ from the model's."""
    return bool(
        sampling.logit_bias
        or sampling.repetition_penalty != 1.0
        or sampling.no_repeat_ngram_size
        or sampling.frequency_penalty
        or sampling.presence_penalty
    )


def penalise(scores: Tensor, sampling: Sampling, seen: Sequence[int], prompt_tokens: int = 0) -> None:
    """Change the scores of one row in place.

    Args:
        scores: (v,) float32.
        seen: ids of prompt and text so far, each below v.
        prompt_tokens: how many of them are the prompt; frequency and presence count only what follows.

    Raises:
        UsageProblem: a bias is for a text that was not made an id.
    """
    if sampling.logit_bias:
        _bias(scores, sampling.logit_bias)
    if sampling.repetition_penalty != 1.0 and seen:
        _repeat(scores, sampling.repetition_penalty, seen)
    if sampling.no_repeat_ngram_size:
        _ban(scores, completing(seen, sampling.no_repeat_ngram_size))
    if sampling.frequency_penalty or sampling.presence_penalty:
        _count(scores, sampling, seen[prompt_tokens:])


def completing(seen: Sequence[int], size: int) -> list[int]:
    """Tokens that would make the last ``size`` tokens a run that was there before."""
    if size == 1:
        return sorted(set(seen))
    prefix = list(seen[1 - size :])
    # only where the run before the last token can stand; the prefix at the very end has no token after it
    ends = (i for i in range(size - 2, len(seen) - 1) if seen[i] == prefix[-1])
    return sorted({seen[i + 1] for i in ends if list(seen[i + 2 - size : i + 1]) == prefix})


def _bias(scores: Tensor, pairs: Sequence[tuple[int | str, float]]) -> None:
    words = [token for token, _ in pairs if isinstance(token, str)]
    if words:
        raise UsageProblem(
            f"logit_bias has {words[0]!r}, which is text; here it must be the id of a token.",
            hint="logit_bias={262: -5}",
        )
    index = torch.tensor([int(token) for token, _ in pairs], device=scores.device)
    scores.index_add_(0, index, torch.tensor([bias for _, bias in pairs], device=scores.device))


def _repeat(scores: Tensor, penalty: float, seen: Sequence[int]) -> None:
    index = torch.tensor(sorted(set(seen)), device=scores.device)
    now = scores[index]
    scores[index] = torch.where(now < 0, now * penalty, now / penalty)


def _ban(scores: Tensor, banned: Sequence[int]) -> None:
    if not banned:
        return
    index = torch.tensor(banned, device=scores.device)
    before = scores[index]
    scores[index] = BANNED
    if scores.amax() == BANNED:  # nothing would be left to write, as can happen with a tiny vocabulary
        scores[index] = before


def _count(scores: Tensor, sampling: Sampling, written: Sequence[int]) -> None:
    counts = Counter(written)
    if not counts:
        return
    index = torch.tensor(list(counts), device=scores.device)
    times = torch.tensor(list(counts.values()), dtype=scores.dtype, device=scores.device)
    scores[index] -= sampling.frequency_penalty * times + sampling.presence_penalty
