"""Which tokens are computed, in which groups."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from adapterkit.model.packed.layout import SHORT, STRIDE, layout

SIZES = st.lists(st.lists(st.integers(1, 400), min_size=1, max_size=6), min_size=1, max_size=3)


def positions_of(rows: list[list[int]]) -> torch.Tensor:
    """Rows of pieces of these sizes, padded by a piece of their own to the longest."""
    longest = max(map(sum, rows))
    filled = [[*row, *([longest - sum(row)] if longest > sum(row) else [])] for row in rows]
    return torch.stack([torch.cat([torch.arange(n) for n in row]) for row in filled])


@given(SIZES)
def test_every_token_is_in_exactly_one_group_with_its_piece_in_order(rows: list[list[int]]) -> None:
    positions = positions_of(rows)
    where = layout(positions)
    assert where.whole
    assert where.kept.tolist() == list(range(positions.numel()))
    found = []
    for group in where.groups:
        tokens = group.tokens.view(group.n, group.m)
        real = (
            torch.ones_like(tokens, dtype=torch.bool) if group.real is None else group.real.view(tokens.shape)
        )
        for piece, there in zip(tokens, real, strict=True):
            mine = piece[there].tolist()
            assert mine == list(range(mine[0], mine[0] + len(mine)))
            assert positions.flatten()[mine].tolist() == list(range(len(mine)))
            assert there[: len(mine)].all()  # padding is at the end, where nothing sees it
            assert group.m - len(mine) < STRIDE
            assert group.m == len(mine) or group.m <= SHORT
            found += mine
    assert sorted(found) == list(range(positions.numel()))


@given(SIZES, st.data())
def test_pieces_without_a_wanted_token_are_left_out(rows: list[list[int]], data: st.DataObject) -> None:
    positions = positions_of(rows)
    wanted = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=positions.numel(), max_size=positions.numel()))
    )
    wanted = wanted.view(positions.shape)
    piece = (positions == 0).flatten().cumsum(0)
    needed = {int(p) for p in piece[wanted.flatten()]}
    where = layout(positions, wanted)
    assert where.kept.tolist() == [i for i, p in enumerate(piece.tolist()) if p in needed]
    assert where.whole == (len(where.kept) == positions.numel())


def test_nothing_wanted_leaves_nothing() -> None:
    positions = positions_of([[3, 4]])
    where = layout(positions, torch.zeros_like(positions, dtype=torch.bool))
    assert (len(where.kept), where.groups) == (0, ())
