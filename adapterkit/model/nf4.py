"""4-bit matrices of bitsandbytes, the base that training sees with ``quantize: 4bit``.

nf4 in blocks of 64 numbers, the scale of a block in 8 bits again, with 256 of
them to a float32 one (Dettmers et al. 2023, QLoRA). Products are computed in the
format of what comes in. Runs on CUDA and, for tests, on a CPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from adapterkit.errors import Unsupported
from adapterkit.model.quiet import quiet_bitsandbytes

BLOCK, SCALES = 64, 256  # numbers to a scale; scales to a scale of theirs
KIND = "nf4"


class Nf4(NamedTuple):
    """y = x W^T + b with W in 4 bits; all of it tensors, so that its memory can be told."""

    packed: Tensor  # (in * out / 2, 1) uint8, two numbers each
    bias: Tensor  # (out,) in the format that is computed in
    scales: Tensor  # (blocks,) uint8
    code: Tensor  # (256,) float32, what they stand for
    largest: Tensor  # (blocks / 256,) float32
    offset: Tensor  # (1,) float32, the mean of the scales

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, in) -> (n, out) in the same format."""
        shape = (len(self.bias), x.shape[1])
        if shape[1] % BLOCK:  # the fused kernel warns, and then does the same
            return F.linear(x, self.wide(shape, x.dtype), self.bias)
        made: Tensor = torch.ops.bitsandbytes.gemm_4bit.default(
            x, self.packed, shape, self.largest, BLOCK, KIND, bias=self.bias,
            absmax_8bit=self.scales, absmax_code=self.code, absmax_offset=self.offset.squeeze(0),
        )  # fmt: skip
        return made

    def wide(self, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """The matrix (out, in) in a float format."""
        ops = torch.ops.bitsandbytes
        scales = ops.dequantize_blockwise.default(self.scales, self.largest, self.code, SCALES, torch.float32)
        made: Tensor = ops.dequantize_4bit.default(
            self.packed, scales + self.offset, BLOCK, KIND, shape, dtype
        )
        return made


def pack(weight: Tensor, bias: Tensor) -> Nf4:
    """A matrix (out, in) in 4 bits, on its device.

    Args:
        bias: (out,), of the weight's device and dtype.

    Raises:
        Unsupported: no bitsandbytes.
    """
    require(4)
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(
        weight.contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type=KIND
    )
    return Nf4(packed, bias, state.absmax, state.state2.code, state.state2.absmax, state.offset.reshape(1))


def require(bits: int) -> None:
    """Whether bitsandbytes is there, which is imported only where it is used.

    Raises:
        Unsupported: it is not.
    """
    quiet_bitsandbytes()
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise Unsupported(
            f"{bits}-bit needs bitsandbytes, which is not installed.",
            hint='pip install "adapterkit[quantize]"',
        ) from None
