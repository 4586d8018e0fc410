"""Names that changed: ``renames.jsonl`` in the root, so that no number of an old name is given out again.

A line is written before the folder is renamed. When the old name is used anew,
its numbers go on above those that left with the folder and those that came to
it since.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
    last: dict[str, str] = {line["from"]: line["to"] for line in _lines(root)}
    seen = {name}
    while (now := last.get(name)) and now not in seen:
        if (root / now).is_dir():
            return now
        seen.add(now)
        name = now
    return None


def floor(root: Path, name: str) -> int:
    """The highest number that ever stood under a name which was renamed away; 0 for none.

    Its versions may be anywhere along the names that followed, and go on counting there.
    """
    lines, todo, seen, highest = _lines(root), [name], set(), 0
    while todo:
        at = todo.pop()
        if at in seen:
            continue
        seen.add(at)
        for line in lines:
            if line["from"] == at:
                there = max((s.number for s in slots.slots(root / line["to"])), default=0)
                highest = max(highest, line["last"], there)
                todo.append(line["to"])
    return highest


def _refuse_used(root: Path, name: str, new: str) -> None:
    """A name that was given up is free only for the adapter that had it: its numbers are known by it."""
    highest = floor(root, new)
    if highest and now_called(root, new) != name:
        raise NameTaken(
            f"{new!r} was another adapter, with versions up to {highest}; its numbers would mean two things.",
            hint=f"adapterkit rename {name} ANOTHER-NAME",
        )


def _lines(root: Path) -> list[dict[str, Any]]:
    lines = files.read_lines(root / FILE)
    wanted = {"from": str, "to": str, "last": int}
    return [line for line in lines if all(isinstance(line.get(k), kind) for k, kind in wanted.items())]
