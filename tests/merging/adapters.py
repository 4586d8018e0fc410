"""Adapters of many shapes, saved by PEFT, and their updates as PEFT adds them up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2LMHeadModel

from adapterkit.registry.store import Registry

TARGETS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
RANKS = (1, 2, 7, 8, 9, 16, 33, 64)
Deltas = dict[str, NDArray[np.float64]]  # h.0.mlp.c_fc -> (out, in)


def saved(folder: Path, base: Path, r: int, rs: bool, targets: list[str], seed: int = 0) -> Path:
    torch.manual_seed(1000 * seed + 2 * r + rs)
    config = LoraConfig(
        r=r, lora_alpha=1.5 * r**0.5 if rs else 1.5 * r, use_rslora=rs, target_modules=targets,
        fan_in_fan_out=True, task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(GPT2LMHeadModel.from_pretrained(base), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.2 * r**-0.5)
    model.save_pretrained(folder)
    return folder


def of_model(model: PeftModel, adapter: str = "default") -> Deltas:
    """What PEFT would add to each weight, in float64."""
    model = model.double()
    found = {}
    for name, module in model.named_modules():
        if adapter in getattr(module, "lora_A", {}):
            short = name.removeprefix("base_model.model.transformer.")
            found[short] = module.get_delta_weight(adapter).T.detach().numpy()  # stored (in, out)
    return found


def of_folder(folder: Path, base: Path) -> Deltas:
    return of_model(PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(base), folder))


def added(blend: dict[str, float], deltas: dict[str, Deltas]) -> Deltas:
    """The sum that people mean."""
    modules = sorted({m for name in blend for m in deltas[name]})
    return {m: sum(w * deltas[n][m] for n, w in blend.items() if m in deltas[n]) for m in modules}


def furthest(ours: Deltas, theirs: Deltas) -> float:
    """The largest relative error of a module, in Frobenius norm."""
    assert ours.keys() == theirs.keys()
    return max(float(np.linalg.norm(ours[m] - theirs[m]) / np.linalg.norm(theirs[m])) for m in theirs)


def brought(registry: Registry, folders: dict[str, Path], base: Path, *names: str) -> Registry:
    for name in names:
        registry.add(folders[name], name=f"r{name}", base=str(base))
    return registry


def named(blend: dict[str, float]) -> dict[str, float]:
    """As ``brought`` calls them."""
    return {f"r{name}": weight for name, weight in blend.items()}
