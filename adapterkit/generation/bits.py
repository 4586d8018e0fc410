"""A base's matrices in 8 or 4 bits where a float format multiplies them: on a GPU.

Only what is stored is rounded; embeddings, head, norms and biases are not. The
8 bits are those of the CPU: int8 with one float32 scale for each output, widened
for each product, so a GPU reads less memory to hold a base and takes longer to
write with it. bitsandbytes' own 8-bit product (LLM.int8, Dettmers et al. 2022)
rounds activations too, picks outlying columns for a whole batch, so that a row
depends on its neighbours, and waits for the GPU at each matrix to find them.
The 4 bits are bitsandbytes' nf4. No operation here waits for the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from adapterkit.generation.weights import LEVELS, TINY
from adapterkit.model import nf4
from adapterkit.model.nf4 import Nf4


class Wide8(NamedTuple):
    """y = x W^T + b, where W is int8 times a scale and widened for each product."""

    weight: Tensor  # (out, in) int8
    bias: Tensor  # (out,) in the format that is computed in
    scale: Tensor  # (out,) float32

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, in) -> (n, out) in the same format."""
        return F.linear(x, self.wide(x.dtype), self.bias)

    def wide(self, dtype: torch.dtype) -> Tensor:
        """The matrix (out, in) in a float format, each number rounded once.

        With the scale in it: products of plain int8 numbers overflow float16.
        """
        made = torch.empty(self.weight.shape, dtype=dtype, device=self.weight.device)
        return torch.mul(self.weight, self.scale.unsqueeze(1), out=made)


Narrow = Wide8 | Nf4


def narrow(
    weight: Tensor, bias: Tensor | None, device: torch.device, dtype: torch.dtype, bits: int
) -> Narrow:
    """A matrix (out, in) in 8 or 4 bits, to be multiplied in a float format.

    Raises:
        Unsupported: 4 bits without bitsandbytes.
    """
    added = torch.zeros(len(weight)) if bias is None else bias
    added = added.to(device, dtype)
    if bits == 4:
        return nf4.pack(weight.to(device, dtype), added)
    wide = weight.to(device).float()
    scale = (wide.abs().amax(1) / LEVELS).clamp_min_(TINY)
    return Wide8((wide / scale[:, None]).round_().to(torch.int8).contiguous(), added, scale)
