"""GPT-2's forward pass for writing, about a page, with a key-value cache.

Letters: b rows, t new positions, n cached positions, h heads, d = e / h,
e width, v vocabulary. The equations are those of Radford et al. 2019; the
oracle in the tests is transformers' GPT2LMHeadModel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import add
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapterkit.errors import Unsupported
from adapterkit.generation.bits import Narrow, narrow
from adapterkit.generation.cache import Cache
from adapterkit.generation.route import Route
from adapterkit.generation.weights import Linear, Matrix, Table, prepare, prepare8

TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
LITTLE = 1 << 20  # numbers
# (layer, queries (b, h, t, d), keys and values (b, t, 2, h, d)) -> (b, h, t, d)
Attend = Callable[[int, Tensor, Tensor], Tensor]


@dataclass
class Block:
    """One layer's tensors."""

    ln_1: tuple[Tensor, Tensor]
    ln_2: tuple[Tensor, Tensor]
    linear: dict[str, Matrix | Narrow]  # by target


class GPT2:
    """Prepared weights and the two passes over them: ``prefill`` and ``step``.

    Args:
        config: the base's config with defaults filled in.
        tensors: canonical names (``h.0.attn.c_attn.weight``) to tensors.
        device, dtype: where and in which format it computes; logits are float32.
        bits: 0; on a CPU 8 with dtype float32, see ``adapterkit.generation.weights``; on a GPU 8 or 4,
            see ``adapterkit.generation.bits``.
    """

    def __init__(
        self,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        device: torch.device,
        dtype: torch.dtype,
        *,
        bits: int = 0,
    ):
        if config["activation_function"] not in ("gelu_new", "gelu_pytorch_tanh"):
            raise Unsupported(f"activation {config['activation_function']!r} is not GPT-2's gelu_new.")
        if config["scale_attn_by_inverse_layer_idx"] or not config["scale_attn_weights"]:
            raise Unsupported("this base scales attention in a way GPT-2 does not.", hint="use a plain GPT-2")
        self.layers, self.heads, self.width = config["n_layer"], config["n_head"], config["n_embd"]
        self.eps, self.context = config["layer_norm_epsilon"], config["n_positions"]

        def get(name: str) -> Tensor:
            return tensors[name].to(device=device, dtype=dtype)

        def pair(name: str) -> tuple[Tensor, Tensor]:
            return get(f"{name}.weight"), get(f"{name}.bias")

        on_cpu = device.type == "cpu"

        def linear(name: str) -> Matrix | Narrow:  # GPT-2 stores (in, out)
            weight, bias = tensors[f"{name}.weight"].T, tensors[f"{name}.bias"]
            if bits and not on_cpu:
                return narrow(weight, bias, device, dtype, bits)
            return prepare8(weight, bias)[0] if bits else prepare(weight, bias, device, dtype)

        self._wte(tensors["wte.weight"], device, dtype, bits * on_cpu)
        self.wpe, self.ln_f = get("wpe.weight"), pair("ln_f")
        self.blocks = [
            Block(pair(f"h.{i}.ln_1"), pair(f"h.{i}.ln_2"), {t: linear(f"h.{i}.{t}") for t in TARGETS})
            for i in range(self.layers)
        ]

    def _wte(self, weight: Tensor, device: torch.device, dtype: torch.dtype, bits: int) -> None:
        """The embeddings are also the head.

        In half precision what all of them share is kept apart: GPT-2's logits lie
        far from 0 together, where bfloat16 would step by a half.
        """
        self.shared: Tensor | None = None
        if bits:
            self.head, self.wte = prepare8(weight, None)
            return
        if dtype != torch.float32:
            self.shared = weight.to(device).float().mean(0).to(dtype)
            weight = weight.to(device).float() - self.shared.float()
        self.head = prepare(weight, None, device, dtype)
        # oneDNN's order has no rows that could be looked up
        rows = self.head.weight if isinstance(self.head, Linear) else weight.to(device, dtype)
        self.wte = Table(rows)

    def _embed(self, ids: Tensor) -> Tensor:
        x = self.wte(ids)
        return x if self.shared is None else x + self.shared

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All that is resident, by name; the head only where it is not the embeddings themselves."""
        yield "wpe", self.wpe
        if self.shared is not None:
            yield "shared", self.shared
        parts: dict[str, tuple[Tensor | None, ...]] = {"wte": self.wte, "ln_f": self.ln_f}
        if self.head[0] is not self.wte.weight:
            parts["head"] = self.head
        for i, block in enumerate(self.blocks):
            own: dict[str, tuple[Tensor | None, ...]] = {
                "ln_1": block.ln_1,
                "ln_2": block.ln_2,
                **block.linear,
            }
            parts |= {f"{i}.{name}": part for name, part in own.items()}
        for name, part in parts.items():
            yield from ((f"{name}.{i}", tensor) for i, tensor in enumerate(part) if tensor is not None)

    @property
    def bytes(self) -> int:
        """Memory of the prepared weights."""
        return sum(t.nbytes for _, t in self.named_tensors())

    def new_cache(self, rows: int, length: int) -> Cache:
        shape = (self.layers, self.heads, self.width // self.heads)
        return Cache(shape, rows, length, self.context, self.wpe)

    @torch.inference_mode()
    def prefill(
        self,
        ids: Tensor,
        lengths: Tensor,
        cache: Cache,
        route: Route,
        first: int = 0,
        start: Tensor | None = None,
    ) -> Tensor:
        """Read prompts, or the next piece of them, into rows first, first + 1, ... of the cache.

        Args:
            ids: (b, t), padded on the right.
            lengths: (b,) how many of a row's ids are real; only those are cached.
            start: (b,) positions of each row that are cached already; None is none.

        Returns:
            Logits (b, v) after each row's last token.
        """
        (b, t), device = ids.shape, ids.device
        begin = torch.zeros_like(lengths) if start is None else start
        begins, many = begin.tolist(), lengths.tolist()
        positions = begin[:, None] + torch.arange(t, device=device)
        put = cache.writer(first, begins, many)
        if start is not None:
            n = max(map(add, begins, many))
            mask, cached = self._bias(positions, n), cache.reader(first, b, n)

        def attend(layer: int, q: Tensor, kv: Tensor) -> Tensor:
            put(layer, kv)
            if start is None:
                k, v = kv.permute(2, 0, 3, 1, 4)
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return F.scaled_dot_product_attention(q, *cached[layer], attn_mask=mask)

        x = self._embed(ids) + self.wpe[positions.clamp(max=self.context - 1)]
        x = self._blocks(x, route, attend)
        last = torch.arange(b, device=device) * t + lengths - 1
        return self._logits(x[last])

    @torch.inference_mode()
    def step(self, ids: Tensor, positions: Tensor, cache: Cache, route: Route) -> Tensor:
        """One token more for rows 0..b-1: ids (b,), positions (b,); logits (b, v)."""
        at = positions.tolist()
        n = max(at) + 1
        mask = self._bias(positions[:, None], n) if min(at) + 1 < n else None
        put, cached = cache.writer(0, at, [1] * len(at)), cache.reader(0, len(at), n)

        def attend(layer: int, q: Tensor, kv: Tensor) -> Tensor:
            put(layer, kv)
            return _one(q, *cached[layer], mask)

        x = (self._embed(ids) + self.wpe[positions])[:, None]
        return self._logits(self._blocks(x, route, attend))

    @torch.inference_mode()
    def logits(self, ids: Tensor, route: Route) -> Tensor:
        """All logits (b, t, v) of whole rows without a cache, for scoring and tests."""
        return self._logits(self._whole(ids, route)).view(*ids.shape, -1)

    @torch.inference_mode()
    def logits_in_pieces(self, ids: Tensor, route: Route, size: int) -> Iterator[Tensor]:
        """The same of one row (1, t), ``size`` positions at a time: (size, v), the last piece shorter."""
        for piece in torch.split(self._whole(ids, route), size):
            yield self._logits(piece)

    def _whole(self, ids: Tensor, route: Route) -> Tensor:
        """Hidden states (b * t, e) behind the last norm."""

        def attend(_: int, q: Tensor, kv: Tensor) -> Tensor:
            k, v = kv.permute(2, 0, 3, 1, 4)
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        return self._blocks(self._embed(ids) + self.wpe[: ids.shape[1]], route, attend)

    def _bias(self, positions: Tensor, n: int) -> Tensor:
        """What is added to attention scores, once for all layers: (b, 1, t, n), 0 or -inf; positions (b, t)."""
        hidden = torch.arange(n, device=positions.device) > positions[..., None]
        bias = torch.zeros(hidden.shape, dtype=self.wpe.dtype, device=positions.device)
        return bias.masked_fill_(hidden, float("-inf"))[:, None]

    def _blocks(self, x: Tensor, route: Route, attend: Attend) -> Tensor:
        """The hidden states (b * t, e) behind the last norm, of embeddings x (b, t, e)."""
        (b, t, e), size = x.shape, self.width // self.heads
        x = x.view(b * t, e)
        for i, block in enumerate(self.blocks):
            linear = block.linear
            a = torch.layer_norm(x, (e,), *block.ln_1, self.eps)
            qkv = route.add(linear["attn.c_attn"](a), a, i, "attn.c_attn")
            q, kv = torch.split(qkv.view(b, t, 3, self.heads, size), [1, 2], 2)
            a = attend(i, q[:, :, 0].transpose(1, 2), kv).transpose(1, 2).reshape(b * t, e)
            x = route.add(linear["attn.c_proj"](a), a, i, "attn.c_proj").add_(x)
            m = torch.layer_norm(x, (e,), *block.ln_2, self.eps)
            h = F.gelu(route.add(linear["mlp.c_fc"](m), m, i, "mlp.c_fc"), approximate="tanh")
            x = route.add(linear["mlp.c_proj"](h), h, i, "mlp.c_proj").add_(x)
        return torch.layer_norm(x, (e,), *self.ln_f, self.eps)

    def _logits(self, x: Tensor) -> Tensor:
        """Logits (n, v) in float32 of hidden states (n, e)."""
        y = self.head(x).float()
        return y if self.shared is None else y.add_((x.float() @ self.shared.float())[:, None])


def _one(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of one new position: q (b, h, 1, d), k and v (b, h, n, d).

    torch's fused kernel is slow with one query in bfloat16 on a CPU, 2 to 7 times. What is
    little is widened for it, 3 times as fast as the plain products of the rest (measured).
    """
    if q.dtype == torch.float32 or q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if k.numel() <= LITTLE:
        wide = None if mask is None else mask.float()
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=wide).to(q.dtype)
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(2, 3))
    return torch.matmul((scores if mask is None else scores.add_(mask)).softmax(-1), v)
