"""Held-out loss in float32: a base loaded once, adapters put into its weights and taken out again.

An adapter adds scale * B @ A to the weights it targets. The tensors of the base
are kept and put back, never computed back, so that the base is the very same
after any number of adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapterkit.data.pack import Rows
from adapterkit.errors import DataError
from adapterkit.generation.load import put_full
from adapterkit.model.base import Base
from adapterkit.model.device import Device, choose
from adapterkit.model.trainable import TORCH_DTYPES, load_model
from adapterkit.recipe.schema import Recipe
from adapterkit.registry import full
from adapterkit.registry.strict import CONFIG as LORA_CONFIG
from adapterkit.registry.strict import LoraFiles, read_lora, tensor_name
from adapterkit.registry.version import Version
from adapterkit.scoring.loss import Loss, PackedLoss, score

AT_ONCE = {"cpu": 1024, "cuda": 8192}  # tokens computed at once; on a CPU more is slower

Progress = Callable[[int, int], None]  # rows done, rows
Sum = Sequence[tuple[LoraFiles, float]]  # adapters with their weights


@dataclass(frozen=True)
class Losses:
    """The base's loss and the adapter's, on the same rows."""

    base: Loss
    adapter: Loss | None


class Scorer:
    """One GPT-2 in float32.

    Args:
        base: what adapters are put into.
        device: auto, cpu, cuda, cuda:N; the arithmetic is float32 on any.
        whole: all weights of a full fine-tune of its sizes, in place of the base's own.

    Raises:
        Damaged, Unsupported: the weights are not those of a GPT-2 of these sizes.
    """

    def __init__(self, base: Base, device: str = "auto", *, whole: Iterable[full.Tensor] = ()) -> None:
        base.check()
        self.base = base
        self.device: Device = choose(device, "fp32")
        # method full: float32 on every device
        model: Any = load_model(base, self.device, Recipe(base=base.id, method="full"))
        model.requires_grad_(False)
        put_full(model, whole)
        self._core = model.transformer
        self._loss = PackedLoss(model.eval())

    @classmethod
    def of_full(cls, version: Version, base: Base, device: str = "auto") -> Scorer:
        """A published full fine-tune, every byte of it checked.

        Raises:
            Damaged, Unsupported: see ``adapterkit.registry.full``.
        """
        full.check_architecture(version, base.config, base.id)
        return cls(base, device, whole=full.read_tensors(version, base.config))

    def loss(
        self,
        rows: Rows,
        adapters: Sum = (),
        *,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> Loss:
        """Loss over rows with a weighted sum of adapters; none of them is the base itself.

        Args:
            rows: packed; their cut into rows counts, their order and the batch size do not.
            batch_size: rows computed at once; None takes what suits the device.
            progress: told after each batch.

        Raises:
            DataError: no row has a target.
        """
        step = batch_size or max(1, AT_ONCE[self.device.place.type] // rows.length)
        if not len(rows):
            raise DataError("there is nothing to score: no row has a target.", hint="use longer text")
        nll, n = 0.0, 0
        with self._added(adapters):
            for i in range(0, len(rows), step):
                part = score(self._loss, rows[i : i + step], step, rows.filler, self.device.place)
                nll, n = nll + part.nll, n + part.n
                if progress:
                    progress(min(i + step, len(rows)), len(rows))
        return Loss(nll, n)

    @contextmanager
    def _added(self, adapters: Sum) -> Iterator[None]:
        kept: list[tuple[Any, Tensor]] = []
        try:
            for target in sorted({t for files, _ in adapters for t in files.targets}):
                for i, block in enumerate(self._core.h):
                    weight = block.get_submodule(target).weight
                    kept.append((weight, weight.data))
                    weight.data = weight.data + self._update(i, target, adapters).t()  # stored (in, out)
            yield
        finally:
            for weight, before in kept:
                weight.data = before

    def _update(self, layer: int, target: str, adapters: Sum) -> Tensor:
        """Sum of weight * scale * B @ A, (out, in)."""
        parts = [
            (self._tensor(files, layer, target, "B") * (files.scale * weight))
            @ self._tensor(files, layer, target, "A")
            for files, weight in adapters
            if target in files.targets
        ]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def _tensor(self, files: LoraFiles, layer: int, target: str, side: str) -> Tensor:
        dtype, shape, data = files.tensors[tensor_name(layer, target, side)]
        stored = torch.frombuffer(bytearray(data), dtype=TORCH_DTYPES[dtype]).reshape(shape)
        return stored.to(self.device.place, torch.float32)


def fp32_losses(
    base: Base,
    folder: Path | None,
    rows: Rows,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Losses:
    """The base's loss and that of the files in a folder, in one arithmetic.

    Args:
        base: what was trained from.
        folder: with an adapter's files or a whole model; None scores the base alone.
        rows: packed held-out text.
        device, batch_size, progress: as for ``Scorer``; progress is told of both in turn.

    Raises:
        Damaged, Unsupported: the files are not what a registry would take.
    """
    scorer = Scorer(base, device)
    of_base = scorer.loss(rows, batch_size=batch_size, progress=progress)
    if folder is None:
        return Losses(of_base, None)
    sum_: Sum = ()
    if (folder / LORA_CONFIG).is_file():
        sum_ = [(read_lora(folder, base.dims, "the new adapter"), 1.0)]
    else:
        scorer = Scorer(base, device, whole=full.read_folder(folder, base.config, "the new model"))
    return Losses(of_base, scorer.loss(rows, sum_, batch_size=batch_size, progress=progress))
