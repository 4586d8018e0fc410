"""The demo, whole: three styles learned, shown side by side, and there the second time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterkit.registry.store import Registry

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_the_demo_teaches_three_styles_and_finds_them_again(cli: Cli, tmp_path: Path) -> None:
    root = str(tmp_path / "adapters")
    code, out, err = cli("demo", "--registry", root)
    assert (code, err) == (0, "")
    versions = Registry(root).versions()
    assert [v.name for v in versions] == ["ledger", "noir", "shanty"]
    assert max(v.metrics.gain or 0 for v in versions) < -0.30
    assert max(v.size for v in versions) < 1_100_000
    assert masked(out) == SCREEN
    again = cli("demo", "--registry", root)
    assert again[0] == 0
    assert again[1].count("there already") == 3
    assert len(Registry(root).versions()) == 3


def masked(text: str) -> str:
    """Numbers as #, written texts as ..., runs of blanks as one."""
    text = re.sub(r"The sea was [^\n]*", "The sea was ...", text)
    text = re.sub(r"[0-9][0-9.,]*", "#", text)
    return "\n".join(re.sub(" +", " ", line).rstrip() for line in text.strip().split("\n"))


SCREEN = """\
A toy GPT-# of # million parameters comes with the package. It learns three styles now, then writes in each.

 before The sea was ...

#/# shanty # songs # words # s unseen lines get # % easier
#/# noir # scenes # words # s unseen lines get # % easier
#/# ledger # entries # words # s unseen lines get # % easier

One prompt, five writers (same seed, same settings)
 base The sea was ...
 shanty The sea was ...
 noir The sea was ...
 ledger The sea was ...
 # shanty + # noir
 The sea was ...

 adapter size perplexity on unseen text ends by itself copied at most
 shanty@# # kB # → # −# % #% # words
 noir@# # kB # → # −# % #% # words
 ledger@# # kB # → # −# % #% # words

That was a toy, in # s. The same with your text and real GPT-# (# MB, once):
 adapterkit train stories/
Or play: adapterkit chat shanty adapterkit generate noir=# "Rain" adapterkit list"""
