"""Which tokens of a batch are computed, and in which blocks they see each other.

A piece is a stretch of one document within a row: its positions count up from
where they restart. Pieces never see each other, so attention needs only their
own blocks, and a piece without any target needs nothing at all: padding costs
no arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

STRIDE = 32  # short pieces are padded to a multiple of this, to be computed together
SHORT = 256  # longer ones are computed alone, or with others of their very length


@dataclass(frozen=True)
class Group:
    """n pieces computed together, each padded at its end to m tokens."""

    tokens: Tensor  # (n * m) places among the kept tokens; padding repeats the piece's last one
    real: Tensor | None  # (n * m) bool, False at padding; None when there is none
    among: Tensor | None  # places of the real ones among the n * m, so that a GPU need not look for them
    n: int
    m: int
    begin: int | None = None  # where they stand one after the other without padding, the first one's place


@dataclass(frozen=True)
class Layout:
    """k kept tokens of a batch of (b, t), and their groups."""

    kept: Tensor  # (k) places in the flattened batch
    groups: tuple[Group, ...]
    whole: bool  # every token is kept, in its order


def layout(position_ids: Tensor, wanted: Tensor | None = None) -> Layout:
    """The pieces of a batch; those without a wanted token are left out.

    Args:
        position_ids: (b, t), restarting where a piece begins.
        wanted: (b, t) bool, tokens whose hidden states are asked for; None wants all.
    """
    flat = position_ids.cpu()
    begins = torch.ones_like(flat, dtype=torch.bool)
    begins[:, 1:] = flat[:, 1:] != flat[:, :-1] + 1
    starts = begins.flatten().nonzero().flatten()
    sizes = torch.diff(starts, append=torch.tensor([flat.numel()]))
    if wanted is not None:
        counts = torch.segment_reduce(wanted.cpu().flatten().float(), "sum", lengths=sizes)
        starts, sizes = starts[counts > 0], sizes[counts > 0]
    offsets = sizes.cumsum(0) - sizes
    kept = torch.repeat_interleave(starts - offsets, sizes) + torch.arange(int(sizes.sum()))
    groups = tuple(_groups(offsets, sizes))
    place = position_ids.device
    moved = tuple(
        replace(g, tokens=g.tokens.to(place), real=_moved(g.real, place), among=_moved(g.among, place))
        for g in groups
    )
    return Layout(kept.to(place), moved, len(kept) == flat.numel())


def _groups(offsets: Tensor, sizes: Tensor) -> list[Group]:
    room = torch.where(sizes <= SHORT, (sizes + STRIDE - 1) // STRIDE * STRIDE, sizes)
    groups = []
    for m in sorted(set(room.tolist())):
        those = (room == m).nonzero().flatten()
        along = torch.arange(m)
        real = along < sizes[those, None]
        tokens = offsets[those, None] + along.clamp(max=sizes[those, None] - 1)
        flat = None if real.all() else real.flatten()
        among = None if flat is None else flat.nonzero().flatten()
        begins = offsets[those]
        in_line = flat is None and bool((begins[1:] == begins[:-1] + m).all())
        begin = int(begins[0]) if in_line else None
        groups.append(Group(tokens.flatten(), flat, among, len(those), m, begin))
    return groups


def _moved(tensor: Tensor | None, place: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(place)
