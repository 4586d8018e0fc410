"""ties, dare-ties and magnitude against mergekit's formulas, written again here in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import adapterkit as ak
from adapterkit.merging import combine, methods
from adapterkit.merging.blend import blend_of
from adapterkit.merging.blended import Asked
from adapterkit.merging.deltas import Thin
from adapterkit.merging.methods import Chosen
from adapterkit.registry.store import Registry
from tests.merging.adapters import Deltas, brought, furthest, named, of_folder

THREE = {"8": 0.7, "8-other": 0.3, "64-rs": 0.5}
Sparsify = Callable[[torch.Tensor, float], torch.Tensor]


def largest(tensor: torch.Tensor, density: float) -> torch.Tensor:
    keep = torch.topk(tensor.abs().reshape(-1), int(density * tensor.numel())).indices
    mask = torch.zeros(tensor.numel(), dtype=tensor.dtype)
    mask[keep] = 1
    return tensor * mask.reshape(tensor.shape)


def generalized(
    deltas: list[torch.Tensor], weights: list[float], *, elect: bool, normalize: bool
) -> torch.Tensor:
    """mergekit's generalized task arithmetic, behind the choice of numbers."""
    stack, w = torch.stack(deltas), torch.tensor(weights, dtype=torch.float64)[:, None, None]
    weighted = stack * w
    if not elect:
        return weighted.sum(0)
    majority = (weighted.sum(0) >= 0).double() * 2 - 1
    mask = (weighted.sign() == majority).double()
    mixed, divisor = (weighted * mask).sum(0), (w * mask).sum(0)
    divisor[divisor.abs() < 1e-8] = 1
    return mixed / divisor if normalize else mixed


def expected(deltas: dict[str, Deltas], density: float, *, elect: bool, normalize: bool) -> Deltas:
    found = {}
    for module in deltas["8"]:
        there = [n for n in THREE if module in deltas[n]]
        kept = [largest(torch.tensor(deltas[n][module]), density) for n in there]
        made = generalized(kept, [THREE[n] for n in there], elect=elect, normalize=normalize)
        found[module] = made.numpy()
    return found


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
@pytest.mark.parametrize(("method", "elect"), [("ties", True), ("magnitude", False)])
def test_trimming_methods_are_mergekits_on_whole_updates(
    method: str, elect: bool, density: float,
    registry: Registry, folders: dict[str, Path], deltas: dict[str, Deltas], tiny_base: Path,
) -> None:  # fmt: skip
    brought(registry, folders, tiny_base, *THREE)
    made = ak.blend(named(THREE), name="c", method=method, density=density, registry=registry)
    assert made.manifest["lora"]["r"] == 32  # of 80: more would be of no use in 32 x 128
    meant = expected(deltas, density, elect=elect, normalize=True)
    assert furthest(of_folder(made.path, tiny_base), meant) < 1e-5


def test_dare_ties_that_drops_nothing_is_mergekits(
    registry: Registry, folders: dict[str, Path], deltas: dict[str, Deltas], tiny_base: Path
) -> None:
    brought(registry, folders, tiny_base, *THREE)
    made = ak.blend(named(THREE), name="c", method="dare-ties", density=1.0, registry=registry)
    meant = expected(deltas, 1.0, elect=True, normalize=False)
    assert furthest(of_folder(made.path, tiny_base), meant) < 1e-5


def test_dare_ties_is_the_same_bits_for_a_seed(
    registry: Registry, folders: dict[str, Path], tiny_base: Path
) -> None:
    brought(registry, folders, tiny_base, *THREE)

    def weights(name: str, **asked: int) -> bytes:
        made = ak.blend(named(THREE), name=name, method="dare-ties", rank=8, registry=registry, **asked)
        return (made.path / "adapter_model.safetensors").read_bytes()

    assert weights("c", seed=3) == weights("d", seed=3)
    assert weights("e", seed=4) != weights("d", seed=3)
    assert weights("f") == weights("g", seed=0)


def test_what_is_dropped_does_not_depend_on_the_order_of_parts(
    registry: Registry, folders: dict[str, Path], tiny_base: Path
) -> None:
    brought(registry, folders, tiny_base, *THREE)
    turned = dict(reversed(THREE.items()))
    one, two = (
        of_folder(ak.blend(named(p), name=n, method="dare-ties", registry=registry).path, tiny_base)
        for n, p in (("c", THREE), ("d", turned))
    )
    assert furthest(one, two) < 1e-5


def test_the_residual_is_what_the_stored_update_lacks(
    registry: Registry, folders: dict[str, Path], deltas: dict[str, Deltas], tiny_base: Path
) -> None:
    brought(registry, folders, tiny_base, *THREE)
    done = blend_of(named(THREE), Asked("c", rank=6, method="ties", density=0.5), registry)
    ours = of_folder(done.version.path, tiny_base)
    for module, meant in expected(deltas, 0.5, elect=True, normalize=True).items():
        lost = np.linalg.norm(ours[module] - meant) / np.linalg.norm(meant)
        best = np.linalg.svd(meant, compute_uv=False)
        assert done.residuals[module] == pytest.approx(lost, rel=0.01)
        assert lost == pytest.approx(np.linalg.norm(best[6:]) / np.linalg.norm(best), rel=1e-4)


# --- single numbers -----------------------------------------------------------


def chosen(*parts: tuple[list[float], float]) -> list[Chosen]:
    return [Chosen(np.array([d]), w, np.random.default_rng(0)) for d, w in parts]


def test_ties_by_hand() -> None:
    parts = chosen(([4.0, 1.0, -3.0, 0.5], 1.0), ([2.0, 5.0, 6.0, -0.5], 1.0))
    # half of each is kept: [4, 0, -3, 0] and [0, 5, 6, 0]
    assert methods.ties(parts, 0.5).tolist() == [[4.0, 5.0, 6.0, 0.0]]


def test_a_weight_below_zero_turns_an_adapter_round_in_ties() -> None:
    assert methods.ties(chosen(([4.0, -2.0], -0.5)), 1.0).tolist() == [[-4.0, 2.0]]
    both = chosen(([4.0, 1.0], -0.5), ([-2.0, 3.0], 1.0))
    assert methods.ties(both, 1.0) == pytest.approx(np.array([[-4 / 1.5, 3.0]]))


def test_weights_of_ties_are_shares() -> None:
    parts, doubled = (chosen(([4.0, -2.0], 0.5 * k), ([1.0, 3.0], 0.25 * k)) for k in (1, 2))
    assert methods.ties(parts, 1.0) == pytest.approx(methods.ties(doubled, 1.0))


def test_dropping_keeps_the_share_and_the_expectation() -> None:
    kept = methods.dropped(np.ones((400, 400)), 0.3, np.random.default_rng(0))
    assert set(np.unique(kept)) == {0.0, 1 / 0.3}
    assert kept.mean() == pytest.approx(1.0, abs=0.02)


def test_adapters_and_modules_drop_other_numbers() -> None:
    given = (0, "ab" * 32, "h.0.mlp.c_fc")
    first = methods.generator(*given).random(8).tolist()
    assert methods.generator(*given).random(8).tolist() == first
    for other in ((1, *given[1:]), (0, "cd" * 32, given[2]), (*given[:2], "h.1.mlp.c_fc")):
        assert methods.generator(*other).random(8).tolist() != first


def test_each_adapter_and_module_draws_for_itself(
    registry: Registry, folders: dict[str, Path], deltas: dict[str, Deltas], tiny_base: Path
) -> None:
    """With the masks drawn here anew, the whole of dare-ties is mergekit's."""
    brought(registry, folders, tiny_base, *THREE)
    made = ak.blend(named(THREE), name="c", method="dare-ties", density=0.4, seed=5, registry=registry)
    meant = {}
    for module in deltas["8"]:
        there = [n for n in THREE if module in deltas[n]]
        kept = []
        for name in there:
            whole = deltas[name][module]
            draw = methods.generator(5, registry[f"r{name}"].digest, module)
            kept.append(torch.tensor(whole * (draw.random(whole.shape) < 0.4) / 0.4))
        sums = generalized(kept, [THREE[n] for n in there], elect=True, normalize=False)
        meant[module] = sums.numpy()
    assert furthest(of_folder(made.path, tiny_base), meant) < 1e-5


def test_trimming_keeps_at_least_one_number() -> None:
    assert methods.trimmed(np.array([[1.0, -3.0, 2.0]]), 0.01).tolist() == [[0.0, -3.0, 0.0]]


# --- factors ------------------------------------------------------------------


def random_thin(out: int, r: int, into: int) -> Thin:
    draw = np.random.default_rng(r)
    return Thin(draw.normal(size=(r, into)), draw.normal(size=(out, r)))


@pytest.mark.parametrize(("out", "r", "into"), [(50, 7, 30), (30, 7, 50), (20, 40, 30), (5, 1, 9)])
def test_full_rank_is_exact_however_it_is_had(out: int, r: int, into: int) -> None:
    whole = random_thin(out, r, into)
    dense, full = whole.b @ whole.a, min(out, r, into)
    for made in (combine.truncated(whole, full), combine.projected(dense, full)):
        assert made.r == full
        assert np.abs(made.b @ made.a - dense).max() < 1e-12 * np.linalg.norm(dense)


def test_norms_of_thin_products_are_those_of_the_products() -> None:
    x, y = random_thin(40, 6, 30), random_thin(40, 9, 30)
    assert combine.norm(x) == pytest.approx(np.linalg.norm(x.b @ x.a), rel=1e-12)
    off = combine.norm(combine.difference(x, y))
    assert off == pytest.approx(np.linalg.norm(x.b @ x.a - y.b @ y.a), rel=1e-12)


def test_a_small_difference_does_not_cancel_out() -> None:
    x = random_thin(40, 6, 30)
    y = Thin(x.a * (1 + 1e-12), x.b)
    assert combine.norm(combine.difference(x, y)) / combine.norm(x) == pytest.approx(1e-12, rel=0.01)


def test_a_product_of_zeros_stays_one() -> None:
    zero = Thin(np.zeros((3, 8)), np.zeros((9, 3)))
    for made in (combine.truncated(zero, 2), combine.projected(np.zeros((9, 8)), 2)):
        assert not (made.b @ made.a).any()
