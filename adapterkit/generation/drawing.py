"""Drawing the next token of one request, or of many at once.

Names, meanings and order are those of transformers' GenerationConfig: what
moves scores (``penalties``), temperature, top-k, top-p, min-p, typical. Each
request owns its generator and draws one uniform number a token against the
float32 distribution, so that what stands beside it in a batch does not change
what it draws; at temperature 0 it draws none.

Rows of a vocabulary are reduced to the tokens that may be drawn where the
logits lie, without sorting them; the rest (``cuts``) is done on those few.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapterkit.generation import cuts
from adapterkit.generation.cuts import CERTAIN, Drawn, Kept
from adapterkit.generation.penalties import has_penalties, penalise

if TYPE_CHECKING:
    from adapterkit.generation.sampling import Sampling

COLDEST = 1e-30  # a score divided by less is infinite in float32
BLOCK = 64
AT_ONCE = 4


@dataclass(frozen=True)
class Turn:
    """What one request brings to the draw of its next token.

    Attributes:
        seen: ids of prompt and text so far.
        source: the request's own.
        prompt_tokens: how many of ``seen`` are the prompt.
    """

    sampling: Sampling
    seen: Sequence[int]
    source: random.Random
    prompt_tokens: int = 0


def draw(
    logits: Tensor, sampling: Sampling, seen: Sequence[int], source: random.Random, *, prompt_tokens: int = 0
) -> int:
    """The next token of one request.

    Args:
        logits: (v,), finite; left as they are.
        seen: ids of prompt and text so far, for the penalties.
        prompt_tokens: how many of them are the prompt, which frequency and presence do not count.
    """
    return drawn(logits[None], [Turn(sampling, seen, source, prompt_tokens)])[0].token


def draw_batch(logits: Tensor, turns: Sequence[Turn]) -> list[int]:
    """The next token of each request: the same as drawing one by one.

    Args:
        logits: (b, v), finite; left as they are.
    """
    return [each.token for each in drawn(logits, turns)]


def drawn(logits: Tensor, turns: Sequence[Turn]) -> list[Drawn]:
    """The next token of each request with its margin. Shapes and meaning as ``draw_batch``."""
    scores = _penalised(logits.float(), turns)
    made: dict[int, Drawn] = {}
    for way, rows in _alike(turns, scores.shape[-1]).items():
        for some in _pieces(rows, scores):
            made |= zip(some, way(_taken(scores, some), [turns[row] for row in some]), strict=True)
    return [made[row] for row in range(len(turns))]


def _pieces(rows: list[int], scores: Tensor) -> Iterator[list[int]]:
    """All rows at once on an accelerator; on a CPU as many as stay in its cache, side by side."""
    if scores.device.type != "cpu":
        yield rows
        return
    first = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] != rows[i - 1] + 1 or i - first == AT_ONCE:
            yield rows[first:i]
            first = i


def _taken(scores: Tensor, rows: list[int]) -> Tensor:
    """Rows, copied only when they do not stand side by side."""
    if rows[-1] - rows[0] == len(rows) - 1:
        return scores[rows[0] : rows[-1] + 1]
    return scores[rows]


Way = Callable[[Tensor, list[Turn]], Iterator[Drawn]]


def _alike(turns: Sequence[Turn], vocabulary: int) -> dict[Way, list[int]]:
    """Rows by the way they are reduced; one way sees all its rows at once."""
    ways: dict[Way, list[int]] = {}
    for row, turn in enumerate(turns):
        ways.setdefault(_way(turn.sampling, vocabulary), []).append(row)
    return ways


def _way(sampling: Sampling, vocabulary: int) -> Way:
    if sampling.temperature == 0:
        return _greedy
    if 0 < sampling.top_k < vocabulary:
        return _top_k
    if sampling.top_p < 1 or sampling.min_p > 0 or sampling.typical_p < 1:
        return _by_share
    return _uncut


def _penalised(logits: Tensor, turns: Sequence[Turn]) -> Tensor:
    rows = [row for row, turn in enumerate(turns) if has_penalties(turn.sampling)]
    if not rows:
        return logits
    scores = logits.clone()  # also because the engine's are inference tensors, which can't be written to
    for row in rows:
        turn = turns[row]
        penalise(scores[row], turn.sampling, turn.seen, turn.prompt_tokens)
    return scores


def _greedy(scores: Tensor, turns: list[Turn]) -> Iterator[Drawn]:
    if scores.shape[-1] == 1:
        yield from (Drawn(0, CERTAIN) for _ in turns)
    elif scores.device.type == "cpu":
        for row in scores.numpy():  # its argmax is several times faster than torch's
            at = int(row.argmax())
            others = (part.max() for part in (row[:at], row[at + 1 :]) if len(part))
            yield Drawn(at, float(row[at] - max(others)))
    else:
        best = scores.topk(2).values
        likeliest = scores.argmax(-1)  # of equal scores the one argmax takes, as transformers does
        gaps = (best[:, 0] - best[:, 1]).tolist()
        yield from map(Drawn, likeliest.tolist(), gaps)


def _uncut(scores: Tensor, turns: list[Turn]) -> Iterator[Drawn]:
    """From the whole vocabulary."""
    upto = _shares(scores, turns).cumsum(-1, dtype=torch.float64)
    total = upto[:, -1:]
    uniform = torch.tensor([[t.source.random()] for t in turns], dtype=torch.float64, device=scores.device)
    value = uniform * total
    at = torch.searchsorted(upto, value, right=True)
    above = upto.gather(1, at)
    below = torch.where(at > 0, upto.gather(1, (at - 1).clamp(min=0)), torch.zeros_like(value))
    # the two ends of the distribution are no boundaries: there is nothing beyond them
    up = torch.where(above < total, above - value, total)
    down = torch.where(below > 0, value - below, total)
    margins = torch.minimum(up, down) / total
    yield from map(Drawn, at[:, 0].tolist(), margins[:, 0].tolist())


def _by_share(scores: Tensor, turns: list[Turn]) -> Iterator[Drawn]:
    """From tokens whose share is large enough, or typical."""
    shares = _shares(scores, turns)
    size = scores.shape[-1]
    # what has less than its part of the tail can't be outside the tail, whatever the order
    least = torch.tensor([0.999 * (1 - t.sampling.top_p) / size for t in turns], device=scores.device)
    if any(t.sampling.min_p for t in turns):
        of_best = torch.tensor([0.9 * t.sampling.min_p for t in turns], device=scores.device)
        least = torch.maximum(least, of_best * shares.amax(-1))
    for turn, (ids, weights) in zip(turns, _above(shares, least), strict=True):
        yield _finish(Kept(ids, weights, 1.0), turn)


def _above(numbers: Tensor, least: Tensor) -> Iterator[tuple[NDArray[np.int64], cuts.Weights]]:
    """Of each row the ids, ascending, and numbers of at least so much."""
    if numbers.device.type == "cpu":
        for row, limit in zip(numbers.numpy(), least.tolist(), strict=True):
            ids = np.flatnonzero(row >= limit)
            yield ids, row[ids]
        return
    mask = numbers >= least[:, None]
    rows, ids = mask.nonzero().cpu().numpy().T
    ends = np.searchsorted(rows, np.arange(1, len(numbers)))
    yield from zip(np.split(ids, ends), np.split(numbers[mask].cpu().numpy(), ends), strict=True)


def _top_k(scores: Tensor, turns: list[Turn]) -> Iterator[Drawn]:
    """From the k likeliest."""
    most = max(turn.sampling.top_k for turn in turns)
    for turn, (ids, values) in zip(turns, _above(scores, _at_most(scores, most + 1)), strict=True):
        heat = np.float32(max(turn.sampling.temperature, COLDEST))
        likely = Kept(ids, np.exp((values - values.max()) / heat), 1.0)
        yield _finish(cuts.top_k(likely, turn.sampling.top_k), turn)


def _at_most(scores: Tensor, k: int) -> Tensor:
    """For each row a number that is at most its k-th highest score, and not much less.

    The k-th highest of the best scores of blocks: a vocabulary is read once, and only its blocks are sorted.
    """
    blocks = scores.shape[-1] // BLOCK
    if k > blocks:
        return scores.topk(min(k, scores.shape[-1])).values[:, -1]
    best = scores[:, : blocks * BLOCK].reshape(-1, blocks, BLOCK).amax(-1)
    return best.topk(k).values[:, -1]


def _finish(kept: Kept, turn: Turn) -> Drawn:
    sampling = turn.sampling
    if sampling.top_p < 1:
        kept = cuts.top_p(kept, sampling.top_p)
    if sampling.min_p > 0:
        kept = cuts.min_p(kept, sampling.min_p)
    if sampling.typical_p < 1:
        kept = cuts.typical_p(kept, sampling.typical_p)
    return cuts.pick(kept, turn.source.random())


def _shares(scores: Tensor, turns: list[Turn]) -> Tensor:
    """Softmax of each row at its temperature."""
    heat = [max(turn.sampling.temperature, COLDEST) for turn in turns]
    if any(each != 1 for each in heat):
        scores = scores / torch.tensor(heat, device=scores.device)[:, None]
    return scores.softmax(-1)
