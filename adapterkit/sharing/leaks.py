"""Nothing private travels: no place on this computer, and no text that was trained on.

Training writes neither into what ships; this looks once more at every text
before it leaves, because a file that is given away can't be taken back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from adapterkit.errors import Unsupported

QUOTED = 31  # words in a row: one more than the samples on a card may share with the text
ROOTS = (
    "home|Users|root|tmp|var|mnt|media|data|srv|opt|etc|private|Volumes|content|kaggle|workspace|work|scratch"
)
# A place within a text. Generated text may hold "and/or", "/ Heave away" and web addresses.
PLACE = re.compile(
    rf"file:/+\S+|(?<![\w:/.<])/(?:{ROOTS})/[\w.~-]\S*|(?<!\w)[A-Za-z]:[\\/]{{1,2}}[\w.~-]\S*"
    r"|\\\\\w[\w.-]*\\\S+|(?<![\w/.~])~(?:[a-z_][\w.-]*)?[\\/][\w.]\S*"
)
# A whole value that is a place, whichever its root.
WHOLE = re.compile(r"/[\w.@+-]+(?:/[\w.@+ -]+)+")


def check(texts: Mapping[str, bytes], manifest: Mapping[str, Any], folder: Path | None, ref: str) -> None:
    """Look through all that ships.

    Args:
        texts: file name -> bytes.
        folder: of the version on this computer, whose ``private/`` holds excerpts of the text.

    Raises:
        Unsupported: something that must stay here.
    """
    strings = {name: list(_strings(name, data)) for name, data in texts.items() if name in READ}
    strings["manifest.json"] = list(_walk(manifest))
    home = str(Path.home())
    for name, found in strings.items():
        for text in found:
            if place := _place(text, home):
                raise Unsupported(
                    f"{ref} does not leave this computer: its {name} names a place here, {place[:80]!r}.",
                    hint="train it again from a folder given by a relative path, for example: cd THERE && adapterkit train texts/",
                    code="private",
                    details={"ref": ref, "file": name, "place": place},
                )
    for name, quoted in _quotations(strings, _excerpts(folder)):
        raise Unsupported(
            f"{ref} does not leave this computer: its {name} quotes its training text, {quoted[:60]!r} ...",
            hint="train it again with sample.prompts of your own words: --set 'sample.prompts=[\"...\"]'",
            code="private",
            details={"ref": ref, "file": name},
        )


# Files whose words are ours or the model's; a tokenizer's vocabulary is the base's.
READ = ("README.md", "adapter_config.json", "config.json", "history.json", "recipe.json")


def _strings(name: str, data: bytes) -> Iterator[str]:
    text = data.decode("utf-8", "replace")
    if not name.endswith(".json"):
        yield text
        return
    try:
        yield from _walk(json.loads(text))
    except (ValueError, RecursionError):
        yield text


def _walk(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from _walk(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _walk(each)


def _place(text: str, home: str) -> str | None:
    """The first place of this computer that a text names."""
    if len(home) > 4 and home in text:  # not "/" or "/root" alone, which other words may hold
        return home
    found = WHOLE.fullmatch(text.strip()) or PLACE.search(text)
    return found[0].rstrip(".,;:)\"'") if found else None


def _excerpts(folder: Path | None) -> set[tuple[str, ...]]:
    """Runs of ``QUOTED`` words of the training text, as far as private files on this computer show it."""
    path = folder / "private" / "data.json" if folder else None
    if path is None or not path.is_file():
        return set()
    try:
        told = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return set()
    return {run for text in _walk(told) for run in _runs(text)}


def _quotations(
    strings: Mapping[str, Iterable[str]], excerpts: set[tuple[str, ...]]
) -> Iterator[tuple[str, str]]:
    if not excerpts:
        return
    for name, texts in strings.items():
        for text in texts:
            yield from ((name, " ".join(run)) for run in _runs(text) if run in excerpts)


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"\w+(?:['’]\w+)*", text.lower())  # as ``scoring.samples`` counts them
    return (tuple(words[i : i + QUOTED]) for i in range(len(words) - QUOTED + 1))
