"""A base's matrices as they are kept and multiplied: in a float format, or in 8 bits.

On a CPU they lie in oneDNN's own order, made once: with one row 1.3 to 1.8 times
as fast as torch's plain product, with sixteen 1.5 to 2.5 times, and never slower.

In 8 bits each output channel is int8 with one float32 scale, its largest number
127, and nothing but the stored weight is rounded: activations are float32. For
the multiplication they become 16-bit numbers, as two rows of bytes, so that the
CPU's byte products (VNNI, through oneDNN) sum them exactly::

    x = s (256 high + low)      high, low in -128..127, one s for each row
    y = s (256 high Q^T + low Q^T) * scale + bias         Q[out, in] int8

A row's numbers do not depend on its neighbours, but for rounding. Where the CPU has no such
products, torch's kernel for 8-bit weights takes bfloat16 activations.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 127
LARGEST = 32_639  # 256 * 127 + 127
ZERO = 128  # of the bytes
# Added to a float32 it rounds that to a whole number, whose bits are the last of the sum's; each byte gets its zero point.
WHOLE = float(3 << 22) + ZERO * 257
DIRECT = 6  # rows up to which torch's kernel is faster than widening the weights first (measured)
# numbers up to which one strided copy splits them into bytes faster than two plain ones (measured)
FEW = 1 << 15
HINT = 1024  # rows that the order of 8-bit weights is made for: also the best for one
TINY = torch.finfo(torch.float32).tiny


class Linear(NamedTuple):
    """y = x W^T + b as torch keeps it, in W's format."""

    weight: Tensor  # (out, in)
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, in) -> (n, out)."""
        return F.linear(x, self.weight, self.bias)


class Packed(NamedTuple):
    """The same in oneDNN's own order, in float32 or bfloat16 on a CPU."""

    weight: Tensor  # opaque
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, in) -> (n, out)."""
        made: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self.weight, self.bias, "none", [], "")
        return made


class Bytes(NamedTuple):
    """y = x Q^T * scale + b with exact byte products; see the module."""

    packed: Tensor  # oneDNN's own layout
    bias: Tensor
    scale: Tensor  # (out,)
    zeros: Tensor  # (out,) zero points, none

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, in) -> (n, out), float32. A row that is not finite stays so."""
        if len(x) == 1:
            return self._one(x)
        unit = x.abs().amax(1, keepdim=True).mul_(1 / LARGEST).clamp_min_(TINY)
        pieces = _split(torch.div(x, unit).add_(WHOLE))
        low, high = _product(pieces, 1.0, self.packed, self.scale, self.zeros).chunk(2)
        return torch.addcmul(self.bias, low.add_(high, alpha=256), unit)

    def _one(self, x: Tensor) -> Tensor:
        """One row, whose unit is a number: with the fewest operations, each of which takes longer than its work."""
        unit = max(x.abs().max().item() / LARGEST, TINY)
        pieces = _split(torch.add(_whole(), x, alpha=1 / unit))
        return torch.addmm(self.bias, _halves(), _product(pieces, unit, self.packed, self.scale, self.zeros))


class Plain8(NamedTuple):
    """The same matrix for torch's kernel, in bfloat16 activations."""

    weight: Tensor  # (out, in) int8
    bias: Tensor
    scale: Tensor  # (out,)

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, in) -> (n, out), float32."""
        if len(x) > DIRECT:
            return torch.addcmul(self.bias, F.linear(x, self.weight.float()), self.scale)
        ones = torch.ones_like(self.scale, dtype=torch.bfloat16)  # the scale itself is not rounded
        y = torch._weight_int8pack_mm(x.bfloat16(), self.weight, ones)
        return torch.addcmul(self.bias, y.float(), self.scale)


class Table(NamedTuple):
    """Embeddings: rows of a matrix in a float format, or of an int8 one with its scales."""

    weight: Tensor  # (v, e)
    scale: Tensor | None = None  # (v,)

    def __call__(self, ids: Tensor) -> Tensor:
        """ids (...) -> (..., e)."""
        found = self.weight[ids]
        return found if self.scale is None else found * self.scale[ids][..., None]


Matrix = Linear | Packed | Bytes | Plain8


def prepare(weight: Tensor, bias: Tensor | None, device: torch.device, dtype: torch.dtype) -> Matrix:
    """A matrix (out, in) in a float format."""
    kept = weight.to(device, dtype).contiguous()
    added = None if bias is None else bias.to(device, dtype)
    if device.type == "cpu" and has_packed(dtype):
        return Packed(_packed(kept), added)
    return Linear(kept, added)


def prepare8(weight: Tensor, bias: Tensor | None) -> tuple[Matrix, Table]:
    """A matrix (out, in) in 8 bits on a CPU, and the table of its rows."""
    wide = weight.float()
    scale = (wide.abs().amax(1) / LEVELS).clamp_min_(TINY)
    table = Table((wide / scale[:, None]).round_().to(torch.int8).contiguous(), scale)
    added = torch.zeros_like(scale) if bias is None else bias.float()
    return (_bytes if has_byte_products() else Plain8)(table.weight, added, scale), table


@cache
def has_packed(dtype: torch.dtype) -> bool:
    """Whether this torch has oneDNN's own order for a format, and it multiplies as torch does."""
    weight = torch.linspace(-1, 1, 16 * 64).view(16, 64).to(dtype)
    x = torch.linspace(-1, 1, 64 * 3).view(3, 64).to(dtype)
    try:
        made = Packed(_packed(weight), torch.ones(16, dtype=dtype))(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    wanted = x.double() @ weight.T.double() + 1
    tolerance = 8 * torch.finfo(dtype).eps
    return bool(torch.allclose(made.double(), wanted, rtol=tolerance, atol=tolerance))


def _packed(weight: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        made: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    return made


@cache
def has_byte_products() -> bool:
    """Whether this CPU and this torch sum byte products exactly, tried with the largest ones."""
    weight = torch.full((16, 64), LEVELS, dtype=torch.int8)
    x = torch.linspace(-1, 1, 64 * 3).view(3, 64)
    x[0] = 1.0  # every product of its upper bytes is 255 * 127: without VNNI they saturate 16 bits
    try:
        made = _bytes(weight, torch.zeros(16), torch.ones(16))(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    wanted = x.double() @ weight.T.double()
    return bool(torch.allclose(made.double(), wanted, rtol=1e-3, atol=1.0))


def _bytes(weight: Tensor, bias: Tensor, scale: Tensor) -> Bytes:
    packed = torch.ops.onednn.qlinear_prepack(weight, [HINT, weight.shape[1]])
    return Bytes(packed, bias, scale, torch.zeros(len(scale), dtype=torch.int32))


def _split(whole: Tensor) -> Tensor:
    """Sums of numbers and ``WHOLE``, (n, in) float32, as bytes (2n, in), the lower ones first."""
    n, width = whole.shape
    if whole.numel() <= FEW:
        return whole.view(torch.uint8).view(n, width, 4).permute(2, 0, 1)[:2].reshape(2 * n, width)
    bits = whole.view(torch.int32)
    pieces = torch.empty(2 * n, width, dtype=torch.uint8)
    pieces[:n].copy_(bits)  # the lower byte is what remains
    pieces[n:].copy_(bits.bitwise_right_shift_(8))
    return pieces


@cache
def _whole() -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(WHOLE)


@cache
def _halves() -> Tensor:
    """(1, 2): adds the sums of lower bytes and 256 times those of upper ones."""
    with torch.inference_mode(False):
        return torch.tensor([[1.0, 256.0]])


def _product(x: Tensor, unit: float, packed: Tensor, scale: Tensor, zeros: Tensor) -> Tensor:
    """(x - ZERO) Q^T * unit * scale in float32."""
    made: Tensor = torch.ops.onednn.qlinear_pointwise.default(
        x, unit, ZERO, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return made
