"""What happened to a name, and when: ``<name>/log.jsonl``, a line an event, only ever appended to.

Nothing is computed from it but notes; a line that is lost loses no version.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapterkit import files
from adapterkit.registry import shape

FILE = "log.jsonl"


@dataclass(frozen=True)
class Entry:
    """One event: published, note, alias, alias-removed, deleted, restored, renamed, imported, collected, pushed."""

    at: datetime
    name: str
    what: str
    version: int | None
    more: dict[str, Any]


def record(root: Path, name: str, what: str, version: int | None = None, **more: Any) -> None:
    """Append an event.

    Raises:
        OSError: it can't be written.
    """
    told = {"at": datetime.now(UTC).isoformat(timespec="microseconds"), "what": what, **more}
    if version is not None:
        told["version"] = version
    files.append_line(root / name / FILE, told)


def record_done(root: Path, name: str, what: str, version: int | None = None, **more: Any) -> None:
    """Append an event that has taken place: it can't be undone by a log that is full, only said."""
    try:
        record(root, name, what, version, **more)
    except OSError as e:
        lost = f"; its note was {more['note']!r}: adapterkit note" if more.get("note") else ""
        files.log.warning(
            "%s@%s was %s, but the log could not be written (%s)%s", name, version, what, e.strerror, lost
        )


def entries(root: Path, name: str) -> list[Entry]:
    """The events of a name in their order; lines that are torn or strange are passed over."""
    return _entries(name, files.read_lines(root / name / FILE))


def _entries(name: str, lines: Sequence[dict[str, Any]]) -> list[Entry]:
    found = []
    for line in lines:
        told = dict(line)
        with suppress(KeyError, ValueError, TypeError):
            at, what = datetime.fromisoformat(told.pop("at")), str(told.pop("what"))
            version = told.pop("version", None)
            told |= {k: shape.line(v) for k, v in told.items() if isinstance(v, str)}
            found.append(Entry(at, name, what, version if isinstance(version, int) else None, told))
    return found


def notes(root: Path, name: str) -> dict[int, str]:
    """The last note of each version; an empty one takes it away."""
    with_notes = files.read_lines(root / name / FILE, holding=b'"note":')
    told = [e for e in _entries(name, with_notes) if e.version is not None]
    told = [e for e in told if e.what == "note" or e.more.get("note")]
    return {e.version: str(e.more.get("note", "")) for e in told if e.version is not None}
