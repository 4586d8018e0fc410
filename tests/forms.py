"""Adapters that learned from chats or pairs, as far as their stored recipes tell; the weights are random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapterkit.model.base import locate
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version
from tests.make import make_peft_adapter
from tests.versions import manifest_of

CHATTER = {"template": "{role}: {content}\n"}
ASKED = {"prompt": "{question}\n", "completion": "answer"}
TWICE = {"prompt": "{context}\nQ: {question}\n", "completion": "answer"}


def publish_form(registry: Registry, base: Path, name: str, **data: Any) -> Version:
    """A version of the base whose recipe has these keys of ``data``."""
    known = locate(str(base)).fingerprints
    prints = {"weights": known.weights, "config": known.config, "tokenizer": known.tokenizer}
    manifest = manifest_of(name, "lora", "tiny", prints, Metrics())
    manifest["recipe"]["data"] |= data
    with registry.staging() as folder:
        make_peft_adapter(folder, base, seed=len(registry.versions()), targets=["attn.c_attn"])
        return registry.publish(folder, manifest)


def fill_shelf(registry: Registry, base: Path) -> None:
    """``plain``, ``chatter``, ``asked`` and ``twice``."""
    forms: dict[str, dict[str, str]] = {"plain": {}, "chatter": CHATTER, "asked": ASKED, "twice": TWICE}
    for name, data in forms.items():
        publish_form(registry, base, name, **data)
