"""The next-token loss of packed rows, as one module that trains and evaluates.

The same callable is used for training, for the held-out score and for the
isolation probe, so that they can't disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapterkit.data.encode import IGNORE
from adapterkit.data.pack import Row, stack
from adapterkit.errors import CheckFailed, DataError
from adapterkit.model.packed import forward as packed
from adapterkit.model.packed.forward import unfit
from adapterkit.model.packed.layout import layout
from adapterkit.scoring.head import centred, head_nll

LEAK_8BIT = 1e-2  # of the logits' range


@dataclass(frozen=True)
class Loss:
    """Summed loss in nats over n tokens; mean is nan where nothing was scored."""

    nll: float
    n: int

    @property
    def mean(self) -> float:
        return self.nll / self.n if self.n else float("nan")


class PackedLoss(nn.Module):
    """GPT2LMHeadModel (with or without LoRA inside) as a loss over packed rows.

    Shapes: b rows, t positions, k of them targets, e width, v vocabulary.

    Args:
        model: transformers' GPT2LMHeadModel.
        fast: by our own forward where it computes the same; False takes transformers'.
        dtype: of the matrix products; None takes that of the weights. The same in
            training, in tests and where a step is measured.
    """

    def __init__(self, model: nn.Module, *, fast: bool = True, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.model, self._dtype = model, dtype
        self.slow_because = "it was asked for" if not fast else unfit(model)
        self._head: Tensor | None = None  # of a frozen head, in the format to compute in
        self.train(model.training)

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        position_ids: Tensor,
        num_items_in_batch: Tensor | int | None = None,
    ) -> dict[str, Tensor]:
        """Loss of the targets, masked positions dropped before the head.

        Args:
            input_ids, labels, position_ids: (b, t); labels are IGNORE where a position is no target.
            num_items_in_batch: targets of the whole optimizer step; None divides by this batch's own.
        """
        if self.slow_because:
            hidden, target = self._all(input_ids, labels, position_ids)
        else:
            hidden, target = self._kept(input_ids, labels, position_ids)
        nll = self._nll(hidden, target)
        count = num_items_in_batch if num_items_in_batch is not None else len(target)
        return {"loss": nll / count, "nll": nll.detach(), "n": torch.tensor(len(target))}

    def hidden(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Last hidden states (b, t, e), after the final norm."""
        model: Any = self.model
        if self.slow_because:
            place, weights = input_ids.device.type, model.transformer.wte.weight.dtype
            dtype = self._dtype or weights
            # Without a cache: with one transformers drops the isolation.
            with torch.autocast(place, dtype, enabled=dtype != torch.float32):
                out: Tensor = model.transformer(
                    input_ids=input_ids, position_ids=position_ids, use_cache=False
                ).last_hidden_state
            return out
        states = packed.hidden(model, input_ids, position_ids, layout(position_ids), self._dtype)
        return packed.norm(states, model.transformer.ln_f).view(*input_ids.shape, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        """(.., v) in float32 of final hidden states (.., e)."""
        model: Any = self.model
        out: Tensor = model.lm_head(hidden.to(model.lm_head.weight.dtype)).float()
        return out

    def _all(self, input_ids: Tensor, labels: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        ahead, target = self.hidden(input_ids, position_ids)[:, :-1], labels[:, 1:]
        wanted = target != IGNORE
        return ahead[wanted], target[wanted]

    def _kept(self, input_ids: Tensor, labels: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The same of the tokens that matter: pieces without a target are not computed."""
        model: Any = self.model
        following = F.pad(labels[:, 1:], (0, 1), value=IGNORE)
        where = layout(position_ids, following != IGNORE)
        states = packed.hidden(model, input_ids, position_ids, where, self._dtype)
        following = following.flatten()[where.kept]
        wanted = following != IGNORE
        return packed.norm(states[wanted], model.transformer.ln_f), following[wanted]

    def _nll(self, hidden: Tensor, target: Tensor) -> Tensor:
        model: Any = self.model
        weight: Tensor = model.lm_head.weight
        dtype = self._dtype or weight.dtype
        with torch.autocast(weight.device.type, enabled=False):
            if weight.requires_grad:
                return head_nll(hidden, centred(weight, dtype), target, weight)
            if self._head is None or self._head.dtype != dtype or self._head.device != weight.device:
                self._head = centred(weight, dtype)
            return head_nll(hidden, self._head, target)


@torch.inference_mode()
def score(
    module: PackedLoss, rows: Sequence[Row], batch_size: int, filler: int, device: torch.device
) -> Loss:
    """Loss over rows in float32, independent of the batch size.

    Raises:
        DataError: no row has a target.
    """
    was_training = module.training
    module.eval()
    nll, n = 0.0, 0
    for i in range(0, len(rows), batch_size):
        batch = {
            k: torch.from_numpy(v).to(device)
            for k, v in stack(list(rows[i : i + batch_size]), filler).items()
        }
        out = module(**batch)
        nll, n = nll + float(out["nll"]), n + int(out["n"])
    module.train(was_training)
    if n == 0:
        raise DataError("there is no token to score: every label is masked.", hint="use longer text")
    return Loss(nll, n)


@torch.inference_mode()
def probe_isolation(
    module: PackedLoss, vocabulary: int, length: int, device: torch.device, *, exact: bool = True
) -> float:
    """How far the second document of a packed row moves when the first one changes.

    Every token of the first document is replaced; the second's logits may not
    move. Run through the callable that trains.

    Args:
        exact: not by a single bit, as in fp32, bf16 and fp16; False allows what
            8-bit weights do, whose outliers are chosen over the whole batch.

    Returns:
        The largest change, as a share of the range of the logits.

    Raises:
        CheckFailed: it moves, so documents would see each other.
    """
    was_training = module.training
    module.eval()
    half = max(2, min(length, 32) // 2)
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, vocabulary - 1, (1, half), generator=generator) for _ in range(2))
    before, after = (
        _second_logits(module, torch.cat([a, second], 1).to(device))
        for a in (first, (first + 1) % vocabulary)
    )
    module.train(was_training)
    moved = float((before - after).abs().max() / (before.max() - before.min()))
    if moved > (0.0 if exact else LEAK_8BIT):
        raise CheckFailed(
            f"packed documents see each other: the second one moves by {moved:.2g} when the first one changes.",
            hint="--set data.packing=concat trains so on purpose; else report this with your versions",
        )
    return moved


def _second_logits(module: PackedLoss, ids: Tensor) -> Tensor:
    """Logits of the second half of a row that holds two documents, (1, t / 2, v) in float32."""
    half = ids.shape[1] // 2
    return module.logits(module.hidden(ids, torch.arange(half, device=ids.device).repeat(2)[None])[:, half:])
