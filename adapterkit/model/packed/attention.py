"""Causal attention within each piece, and nowhere else.

On a CPU in blocks of queries against the keys before them, by batched matrix
products: half the arithmetic of a full square, and on two cores 2 to 3 times
as fast as torch's fused kernel, most of all backwards. On CUDA the fused kernel.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapterkit.model.packed.layout import Group, Layout

BLOCK = 128  # queries computed together


def attend(qkv: Tensor, heads: int, where: Layout) -> Tensor:
    """Attention of each kept token to those of its piece up to itself.

    Args:
        qkv: (k, 3e) queries, keys and values beside each other, as GPT-2's c_attn gives them.
        heads: h, of width d = e / h.

    Returns:
        (k, e)
    """
    if qkv.device.type == "cpu":
        return _Blocks.apply(qkv, heads, where)  # type: ignore[no-any-return, no-untyped-call]
    return _fused(qkv, heads, where)


def _fused(qkv: Tensor, heads: int, where: Layout) -> Tensor:
    out = qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)
    for group in where.groups:
        q, k, v = _gather(qkv, heads, group).view(3, heads, group.n, group.m, -1).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        _scatter(out, mixed.transpose(0, 1).reshape(heads * group.n, group.m, -1), group)
    return out


def _gather(qkv: Tensor, heads: int, group: Group) -> Tensor:
    """(3, h * n, m, d) of one group."""
    k, width = qkv.shape
    shape = (3, heads * group.n, group.m, width // 3 // heads)
    if group.begin is not None:
        rows = qkv[group.begin : group.begin + group.n * group.m]
        return rows.view(group.n, group.m, 3, heads, -1).permute(2, 3, 0, 1, 4).reshape(shape)
    by_head = qkv.view(k, 3, heads, -1).permute(1, 2, 0, 3)  # (3, h, k, d)
    return by_head[:, :, group.tokens].view(shape)


def _scatter(out: Tensor, mixed: Tensor, group: Group) -> None:
    """Put the rows of a group's (h * n, m, d) in their places in ``out`` (k, e); padding is dropped."""
    heads = mixed.shape[0] // group.n
    by_token = mixed.view(heads, group.n, group.m, -1).permute(1, 2, 0, 3)  # (n, m, h, d)
    if group.begin is not None:
        out[group.begin : group.begin + group.n * group.m].view(by_token.shape).copy_(by_token)
        return
    rows = by_token.reshape(group.n * group.m, -1)
    if group.among is None:
        out.index_copy_(0, group.tokens, rows)
    else:
        out.index_copy_(0, group.tokens[group.among], rows[group.among])


def _heads_of(grad: Tensor, heads: int, group: Group) -> Tensor:
    """(h * n, m, d) of a gradient (k, e), 0 at padding."""
    if group.begin is not None:
        rows = grad[group.begin : group.begin + group.n * group.m].view(group.n, group.m, heads, -1)
        return rows.permute(2, 0, 1, 3).reshape(heads * group.n, group.m, -1)
    g = grad.view(len(grad), heads, -1).transpose(0, 1)[:, group.tokens].reshape(heads * group.n, group.m, -1)
    return g if group.real is None else g * group.real.view(group.n, group.m, 1).repeat(heads, 1, 1)


class _Blocks(torch.autograd.Function):
    """Softmax in blocks; the probabilities are kept for the way back."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int, where: Layout) -> Tensor:
        out = qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)
        saved: list[Tensor] = []
        for group in where.groups:
            q, k, v = _gather(qkv, heads, group)
            q = q / math.sqrt(q.shape[-1])  # not in place: of a piece of one token it is a view of qkv
            mixed = torch.empty_like(q)
            shares = []
            for i in range(0, group.m, BLOCK):
                end = min(i + BLOCK, group.m)
                scores = torch.bmm(q[:, i:end], k[:, :end].transpose(1, 2))
                scores[:, :, i:].masked_fill_(_ahead(end - i), -math.inf)
                shares.append(scores.softmax(-1))
                mixed[:, i:end] = torch.bmm(shares[-1], v[:, :end])
            _scatter(out, mixed, group)
            saved += [q, k, v, mixed, *shares]
        ctx.save_for_backward(*saved)
        ctx.where, ctx.heads = where, heads
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        saved = list(ctx.saved_tensors)
        grad, width = grad.contiguous(), grad.shape[1]
        out = grad.new_empty(grad.shape[0], 3, width)
        for group in ctx.where.groups:
            blocks = math.ceil(group.m / BLOCK)
            (q, k, v, mixed, *shares), saved = saved[: 4 + blocks], saved[4 + blocks :]
            g = _heads_of(grad, ctx.heads, group)
            for i, each in enumerate(_back(q, k, v, mixed, shares, g)):
                _scatter(out[:, i], each, group)
        return out.view(-1, 3 * width), None, None


def _back(
    q: Tensor, k: Tensor, v: Tensor, mixed: Tensor, shares: list[Tensor], g: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of queries (unscaled), keys and values, each (h * n, m, d)."""
    along = (g.float() * mixed.float()).sum(-1, keepdim=True).to(g.dtype)
    gq = torch.empty_like(q)
    gk, gv = (torch.zeros_like(q, dtype=torch.float32) for _ in range(2))  # sums over blocks
    for n, share in enumerate(shares):
        i, end = n * BLOCK, n * BLOCK + share.shape[1]
        block = g[:, i:end]
        gv[:, :end] += torch.bmm(share.transpose(1, 2), block)
        gs = torch.bmm(block, v[:, :end].transpose(1, 2)).sub_(along[:, i:end]).mul_(share)
        gq[:, i:end] = torch.bmm(gs, k[:, :end])
        gk[:, :end] += torch.bmm(gs.transpose(1, 2), q[:, i:end])
    return gq / math.sqrt(q.shape[-1]), gk.to(q.dtype), gv.to(q.dtype)


def _ahead(n: int) -> Tensor:
    """(n, n) True where a key comes after the query."""
    return torch.ones(n, n, dtype=torch.bool).triu_(1)
