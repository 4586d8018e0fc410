"""Attention in blocks against torch's own, piece by piece."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from adapterkit.model.packed import attention
from adapterkit.model.packed.layout import layout

HEADS, WIDTH = 2, 16
SIZES = [[1, 31, 300, 128, 40], [129, 257, 114]]


def positions() -> torch.Tensor:
    return torch.stack([torch.cat([torch.arange(n) for n in row]) for row in SIZES])


def by_torch(qkv: torch.Tensor) -> torch.Tensor:
    out, begin = [], 0
    for n in [n for row in SIZES for n in row]:
        q, k, v = qkv[begin : begin + n].view(n, 3, HEADS, -1).permute(1, 2, 0, 3)
        out.append(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1).reshape(n, WIDTH))
        begin += n
    return torch.cat(out)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("block", [128, 50])
def test_values_and_gradients_are_torchs(fused: bool, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK", block)
    torch.manual_seed(0)
    where = layout(positions())
    qkv = torch.randn(len(where.kept), 3 * WIDTH, dtype=torch.float64, requires_grad=True)
    ours = attention._fused(qkv, HEADS, where) if fused else attention.attend(qkv, HEADS, where)
    theirs, back = by_torch(qkv), torch.randn(len(where.kept), WIDTH, dtype=torch.float64)
    assert torch.allclose(ours, theirs, atol=1e-12)
    mine, other = (torch.autograd.grad(x, qkv, back, retain_graph=True)[0] for x in (ours, theirs))
    # the sums over blocks are float32
    assert torch.allclose(mine, other, atol=1e-12 if fused else 1e-5)


def test_pieces_do_not_see_each_other_by_a_single_bit() -> None:
    torch.manual_seed(0)
    where = layout(positions())
    qkv = torch.randn(len(where.kept), 3 * WIDTH).bfloat16()
    before = attention.attend(qkv, HEADS, where)
    changed = qkv.clone()
    changed[32:332] = torch.randn(300, 3 * WIDTH).bfloat16()
    after = attention.attend(changed, HEADS, where)
    others = torch.cat([torch.arange(32), torch.arange(332, len(qkv))])
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[32:332], after[32:332])
