"""Names that changed: ``renames.jsonl`` in the root, so that no number of an old name is given out again.

A line is written before the folder is renamed. When the old name is used anew,
its numbers go on above those that left with the folder and those that came to
it since.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from adapterkit import files
from adapterkit.errors import NameTaken, NotFound
from adapterkit.registry import slots

FILE = "renames.jsonl"


def rename(root: Path, name: str, new: str) -> None:
    """Move a name's folder, with versions, aliases, log and scores.

    Raises:
        NameTaken: the new name has something already.
        NotFound: the name went away meanwhile.
    """
    last = max((s.number for s in slots.slots(root / name)), default=0)
    _refuse_used(root, name, new)
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "from": name, "to": new, "last": last}
    files.append_line(root / FILE, line)
    try:
        os.rename(root / name, root / new)
    except FileNotFoundError:
        raise NotFound(f"{name!r} is not there any more.", hint="adapterkit list") from None
    except OSError as e:
        if e.errno not in slots.TAKEN:
            raise
        raise NameTaken(
            f"{new!r} is an adapter already.", hint=f"adapterkit rename {name} ANOTHER-NAME"
        ) from None
    files.sync_folder(root)


def now_called(root: Path, name: str) -> str | None:
    """What a name that is not there any more was renamed to, if that is there."""
    seen = {name}
    while there := [line["to"] for line in _lines(root) if line["from"] == name]:
        name = there[-1]
        if (root / name).is_dir():
            return name
        if name in seen:
            return None
        seen.add(name)
    return None


def floor(root: Path, name: str, seen: frozenset[str] = frozenset()) -> int:
    """The highest number that ever stood under a name which was renamed away; 0 for none."""
    highest = 0
    for line in _lines(root) if name not in seen else []:
        if line["from"] == name:
            there = max((s.number for s in slots.slots(root / line["to"])), default=0)
            onward = floor(root, line["to"], seen | {name})
            highest = max(highest, int(line.get("last", 0)), there, onward)
    return highest


def _refuse_used(root: Path, name: str, new: str) -> None:
    """A name that was given up is free only for the adapter that had it: its numbers are known by it."""
    highest = floor(root, new)
    if highest and now_called(root, new) != name:
        raise NameTaken(
            f"{new!r} was another adapter, with versions up to {highest}; its numbers would mean two things.",
            hint=f"adapterkit rename {name} ANOTHER-NAME",
        )


def _lines(root: Path) -> list[dict[str, str]]:
    lines = files.read_lines(root / FILE)
    return [line for line in lines if isinstance(line.get("from"), str) and isinstance(line.get("to"), str)]
