"""Every recipe of the package finds the text it names in the working folder, and its rows can be made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterkit.recipe import load
from adapterkit.recipe.given import load_sources
from adapterkit.training.describe import look
from tests.conftest import SENTENCES

LINES = [f"{a} {b}" for a in SENTENCES for b in SENTENCES for _ in range(3)]
CHAT = [{"role": "user", "content": SENTENCES[0]}, {"role": "assistant", "content": SENTENCES[1]}]
TEXTS = {
    "data.txt": "\n".join(LINES),
    "text.txt": "\n\n".join(LINES),
    "input.txt": "\n\n".join(LINES),
    "stories/one.txt": "\n\n".join(LINES),
    "chats.jsonl": "\n".join(json.dumps({"messages": CHAT}) for _ in range(200)),
    "reddit_short_stories.txt": "".join(f"<sos> {line} <nl> {line} <eos>\n" for line in LINES),
}
OWN = [n for n in load.packaged_names() if not n.startswith("wikitext")]  # those need the Hub


@pytest.mark.parametrize("name", OWN)
def test_a_recipe_of_the_package_runs_on_the_text_it_names(name: str) -> None:
    for place, text in TEXTS.items():
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_text(text)
    flags = {"base": "embedded"}
    found = look(load_sources([name], flags, lambda _: None)[0])
    assert found.refusal is None
    assert len(found.prepared.train) > 0
