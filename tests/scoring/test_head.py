"""The loss of the head against torch's cross entropy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from adapterkit.scoring import head
from adapterkit.scoring.head import centred, head_nll


@pytest.mark.parametrize("trained", [False, True])
def test_loss_and_gradients_are_those_of_cross_entropy(
    trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several chunks and parts, the last of them not full."""
    monkeypatch.setattr(head, "CHUNK", 20)
    monkeypatch.setattr(head, "PART", 7)
    torch.manual_seed(0)
    hidden = torch.randn(50, 8, requires_grad=True)
    weight = torch.randn(300, 8, requires_grad=trained)
    target = torch.randint(0, 300, (50,))
    ours = head_nll(hidden, centred(weight, torch.float32), target, weight if trained else None) / 50
    theirs = F.cross_entropy(hidden @ weight.t(), target)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    wanted = [hidden, weight] if trained else [hidden]
    for mine, other in zip(
        torch.autograd.grad(ours, wanted), torch.autograd.grad(theirs, wanted), strict=True
    ):
        assert torch.allclose(mine, other, atol=1e-6)


def test_a_target_far_below_the_others_has_its_true_loss() -> None:
    hidden, weight = torch.eye(2)[:1] * 300, torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.5, 0.0]])
    got = head_nll(hidden, centred(weight, torch.float32), torch.tensor([1]))
    assert got.item() == pytest.approx(300, rel=1e-5)  # its share, e^-300, is no float32


def test_the_common_part_of_the_logits_costs_no_precision() -> None:
    """GPT-2's logits lie near -100; in bfloat16 a number of that size has steps of a half."""
    torch.manual_seed(0)
    hidden = torch.randn(64, 32).bfloat16().float()
    common = -100 * hidden.mean(0) / hidden.mean(0).norm() ** 2
    weight = (torch.randn(500, 32) * 0.3 + common).bfloat16().float()
    target = torch.randint(0, 500, (64,))
    true = F.cross_entropy(hidden.double() @ weight.double().t(), target, reduction="sum").item()
    ours = head_nll(hidden, centred(weight, torch.bfloat16), target).item()
    plain = F.cross_entropy(
        (hidden.bfloat16() @ weight.bfloat16().t()).float(), target, reduction="sum"
    ).item()
    assert abs(ours - true) < 0.1 * abs(plain - true)
    assert ours == pytest.approx(true, rel=2e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gradients_are_near(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(40, 32, requires_grad=True)
    weight, target = torch.randn(500, 32), torch.randint(0, 500, (40,))
    (mine,) = torch.autograd.grad(head_nll(hidden, centred(weight, dtype), target), hidden)
    (other,) = torch.autograd.grad(F.cross_entropy(hidden @ weight.t(), target, reduction="sum"), hidden)
    assert mine.dtype == torch.float32
    assert (mine - other).norm() < 6 * torch.finfo(dtype).eps * other.norm()


def test_the_logits_of_a_batch_are_never_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor that is made has the rows of one chunk."""
    monkeypatch.setattr(head, "CHUNK", 16)
    made: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            made.extend(
                t.numel() for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, torch.Tensor)
            )
            return out

    hidden, weight = torch.randn(200, 8, requires_grad=True), torch.randn(1000, 8)
    middle = centred(weight, torch.float32)
    with Watch():
        head_nll(hidden, middle, torch.randint(0, 1000, (200,))).backward()
    assert max(made) == 16 * 1000
