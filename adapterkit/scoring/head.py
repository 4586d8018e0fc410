"""The loss of the head, without ever holding a batch's logits.

The head is GPT-2's embedding matrix, 50,257 wide. Its logits are computed for a
few hundred tokens at a time, and the gradient of the hidden states with them,
so that nothing of that width outlives its chunk and nothing is computed twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 512  # tokens whose logits are held: 51 MB in bfloat16
ROWS = 4096  # of the head, centred at once
PART = 64  # of those, whose probabilities are held in float32, to stay in the processor's cache


def centred(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The head (v, e) less its mean row.

    All logits of a position move by the same amount, which no probability sees;
    but GPT-2's lie near -100, where bfloat16 has steps of a half, and now lie near 0.
    """
    rows = weight.detach()
    mean = rows.mean(0, dtype=torch.float32)
    head = torch.empty(rows.shape, dtype=dtype, device=rows.device)
    for i in range(0, len(rows), ROWS):  # never the whole of it in float32
        head[i : i + ROWS] = rows[i : i + ROWS].float() - mean
    return head


def head_nll(hidden: Tensor, head: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Summed loss in nats of k targets, float32.

    Args:
        hidden: (k, e), after the final norm.
        head: ``centred`` weights (v, e) in the format to compute in.
        target: (k)
        weight: the trained head (v, e), to give it its gradient; None when it is frozen.
    """
    return _Head.apply(hidden, head, target, weight)  # type: ignore[no-any-return, no-untyped-call]


class _Head(torch.autograd.Function):
    """Gradients of the token sum, computed on the way forward, scaled on the way back in float32."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        needs = ctx.needs_input_grad[0]  # never so without gradients
        h = hidden.to(head.dtype)
        k, v = len(h), len(head)
        g_hidden = torch.empty(hidden.shape, dtype=torch.float32, device=h.device) if needs else None
        g_head = None
        if weight is not None and needs:
            g_head = torch.zeros(head.shape, dtype=torch.float32, device=h.device)
        nll = _zero(h.device)
        room = torch.empty(min(CHUNK, k), v, dtype=h.dtype, device=h.device)
        for i in range(0, k, CHUNK):
            part, wanted = h[i : i + CHUNK], target[i : i + CHUNK]
            logits = torch.mm(part, head.t(), out=room[: len(part)])
            nll += _to_errors(logits, wanted, needs)
            if g_hidden is not None:
                g_hidden[i : i + CHUNK] = logits @ head
            if g_head is not None:
                g_head += logits.t() @ part
        ctx.save_for_backward(g_hidden, g_head)
        return nll.float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor | None]:
        g_hidden, g_head = ctx.saved_tensors
        return g_hidden * grad, None, None, None if g_head is None else g_head * grad


def _to_errors(logits: Tensor, target: Tensor, needs: bool) -> Tensor:
    """Summed loss of (n, v) logits, which become their own gradient: probabilities less the targets."""
    nll = _zero(logits.device)
    size = PART if logits.device.type == "cpu" else len(logits)
    for i in range(0, len(logits), size):
        part, wanted = logits[i : i + size], target[i : i + size, None]
        own = part.gather(1, wanted).float()
        top = part.amax(-1, keepdim=True).float()
        shares = torch.softmax(part, -1, dtype=torch.float32)
        # the log of the sum through the largest share, which can't underflow as the target's can
        nll += (top - shares.amax(-1, keepdim=True).log() - own).sum()
        if needs:
            part.copy_(shares)
            # not scatter_, which copies the whole of a bfloat16 tensor
            part[torch.arange(len(part), device=part.device), wanted[:, 0]] = (shares.gather(1, wanted) - 1)[
                :, 0
            ].to(part.dtype)
    return nll


def _zero(device: torch.device) -> Tensor:
    return torch.zeros((), dtype=torch.float64, device=device)
