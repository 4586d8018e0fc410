"""GPT-2's forward pass for writing, about a page, with a key-value cache.

Letters: b rows, t new positions, n cached positions, h heads, d = e / h,
e width, v vocabulary. The equations are those of Radford et al. 2019; the
oracle in the tests is transformers' GPT2LMHeadModel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapterkit.errors import Unsupported
from adapterkit.generation.pages import Route

BUCKET = 64  # cached positions are read in steps of this many, so that shapes repeat


@dataclass
class Block:
    """One layer's tensors; weights are (in, out) as GPT-2 stores them."""

    ln_1: tuple[Tensor, Tensor]
    ln_2: tuple[Tensor, Tensor]
    linear: dict[str, tuple[Tensor, Tensor]]  # target -> (weight, bias)


class Cache:
    """Keys and values of every row: (layers, b, h, n, d), written in place."""

    def __init__(self, layers: int, rows: int, heads: int, length: int, size: int, like: Tensor) -> None:
        shape = (layers, rows, heads, length, size)
        self.k = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.v = torch.zeros_like(self.k)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.k, self.v = self.k[:, rows], self.v[:, rows]


class GPT2:
    """Prepared weights and the two passes over them: ``prefill`` and ``step``.

    Args:
        config: the base's config with defaults filled in.
        tensors: canonical names (``h.0.attn.c_attn.weight``) to tensors.
        device, dtype: where and in which format it computes; logits are float32.
    """

    def __init__(
        self, config: dict[str, Any], tensors: dict[str, Tensor], device: torch.device, dtype: torch.dtype
    ):
        if config["activation_function"] not in ("gelu_new", "gelu_pytorch_tanh"):
            raise Unsupported(f"activation {config['activation_function']!r} is not GPT-2's gelu_new.")
        if config["scale_attn_by_inverse_layer_idx"] or not config["scale_attn_weights"]:
            raise Unsupported("this base scales attention in a way GPT-2 does not.", hint="use a plain GPT-2")
        self.layers, self.heads, self.width = config["n_layer"], config["n_head"], config["n_embd"]
        self.eps, self.context = config["layer_norm_epsilon"], config["n_positions"]

        def get(name: str) -> Tensor:
            return tensors[name].to(device=device, dtype=dtype)

        self.wte, self.wpe = get("wte.weight"), get("wpe.weight")
        self.ln_f = (get("ln_f.weight"), get("ln_f.bias"))
        self.blocks = [
            Block(
                (get(f"h.{i}.ln_1.weight"), get(f"h.{i}.ln_1.bias")),
                (get(f"h.{i}.ln_2.weight"), get(f"h.{i}.ln_2.bias")),
                {
                    t: (get(f"h.{i}.{t}.weight"), get(f"h.{i}.{t}.bias"))
                    for t in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
                },
            )
            for i in range(self.layers)
        ]

    def new_cache(self, rows: int, length: int) -> Cache:
        padded = min(self.context, math.ceil(length / BUCKET) * BUCKET)
        return Cache(self.layers, rows, self.heads, padded, self.width // self.heads, self.wte)

    @torch.inference_mode()
    def prefill(self, ids: Tensor, lengths: Tensor, cache: Cache, route: Route) -> Tensor:
        """Read prompts padded on the right; logits (b, v) after each row's last token.

        Shapes: ids (b, t), lengths (b,). Padding writes keys past a row's end,
        which are overwritten before any position can see them.
        """
        t = ids.shape[1]
        x = self.wte[ids] + self.wpe[:t]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.k[layer, :, :, :t], cache.v[layer, :, :, :t] = k, v
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        x = self._blocks(x, route, attend)
        return self._logits(x[torch.arange(len(ids), device=ids.device), lengths - 1])

    @torch.inference_mode()
    def step(self, ids: Tensor, positions: Tensor, cache: Cache, route: Route) -> Tensor:
        """One token more for every row: ids (b,), positions (b,); logits (b, v)."""
        rows = torch.arange(len(ids), device=ids.device)
        last = int(positions.max()) + 1
        n = min(cache.k.shape[3], math.ceil(last / BUCKET) * BUCKET)
        seen = (torch.arange(n, device=ids.device) <= positions[:, None])[:, None, None]  # (b, 1, 1, n)
        x = (self.wte[ids] + self.wpe[positions])[:, None]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.k[layer, rows, :, positions], cache.v[layer, rows, :, positions] = k[:, :, 0], v[:, :, 0]
            return F.scaled_dot_product_attention(
                q, cache.k[layer, :, :, :n], cache.v[layer, :, :, :n], attn_mask=seen
            )

        return self._logits(self._blocks(x, route, attend)[:, 0])

    @torch.inference_mode()
    def logits(self, ids: Tensor, route: Route) -> Tensor:
        """All logits (b, t, v) of whole rows without a cache, for scoring and tests."""
        x = self.wte[ids] + self.wpe[: ids.shape[1]]
        x = self._blocks(x, route, lambda _, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return self._logits(x)

    def _blocks(self, x: Tensor, route: Route, attend: Any) -> Tensor:
        b, t, e = x.shape
        for i, block in enumerate(self.blocks):
            a = F.layer_norm(x, (e,), *block.ln_1, self.eps)
            qkv = self._linear(a, i, "attn.c_attn", route)  # (b, t, 3e)
            q, k, v = qkv.view(b, t, 3, self.heads, e // self.heads).permute(
                2, 0, 3, 1, 4
            )  # each (b, h, t, d)
            a = attend(i, q, k, v).transpose(1, 2).reshape(b, t, e)
            x = x + self._linear(a, i, "attn.c_proj", route)
            m = F.layer_norm(x, (e,), *block.ln_2, self.eps)
            m = F.gelu(self._linear(m, i, "mlp.c_fc", route), approximate="tanh")
            x = x + self._linear(m, i, "mlp.c_proj", route)
        return F.layer_norm(x, (e,), *self.ln_f, self.eps)

    def _linear(self, x: Tensor, layer: int, target: str, route: Route) -> Tensor:
        weight, bias = self.blocks[layer].linear[target]
        y = torch.addmm(bias, x.flatten(0, 1), weight).view(*x.shape[:2], -1)
        return route.add(y, x, layer, target)

    def _logits(self, x: Tensor) -> Tensor:
        return F.linear(x, self.wte).float()
