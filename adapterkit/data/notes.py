"""What a person is told about prepared text before it is learned: a line for everything that was decided or left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapterkit.data.prepare import Prepared

NAMED = 4  # files or groups named in one line


def notes(p: Prepared) -> list[str]:
    f = p.facts
    told = [
        f"Reading {f.name}: {_count(f.files, 'file')}, {_count(len(p.documents), 'document')}, "
        f"{_count(p.words, 'word')}. {f.cut}"
    ]
    told += [f"  {line}" for line in f.said]
    if f.unreadable:
        more = ", ..." if len(f.unreadable) > NAMED else ""
        told.append(f"  left out: {', '.join(f.unreadable[:NAMED])}{more}")
    if f.without_text:
        told.append(f"  left out: {_count(f.without_text, 'row')} without text")
    if f.reflowed:
        column = max(f.reflowed.values())
        count = len(f.reflowed)
        told.append(
            f"  lines broken at {column} columns were joined in {count} file{'s' * (count != 1)} (--no-reflow keeps them)"
        )
    if f.unpaired:
        told.append(f"  {_count(f.unpaired, 'document')} without {f.resolved['separator']!r}, learned whole")
    told += [f"  {_done(d)}" for d in f.done if d["documents"]]
    if p.duplicates:
        told.append(f"  near-duplicates: {_count(p.duplicates, 'document')} left out")
    if p.groups and p.held_out:
        names = "; ".join(", ".join(g[:NAMED]) for g in p.groups[:2])
        told.append(f"  near-copies kept together: {names}{'; ...' if len(p.groups) > 2 else ''}")
    if not p.near:
        told.append("  near-copies are not looked for in more than 100 MB of text; exact ones are")
    if p.leaks.found:
        what = (
            "left out of training"
            if p.leaks.removed
            else "still learned from (data.clean: [leaks] leaves them out)"
        )
        count = len({learned for learned, _, _ in p.leaks.found})
        told.append(f"  with most of what is tested on in it: {_count(count, 'document')}, {what}")
    if p.split.dropped:
        told.append(
            f"  {_count(p.split.dropped, 'token')} of near-copies of what is tested on {'is' if p.split.dropped == 1 else 'are'} not learned from"
        )
    if p.long:
        then = "cut there" if p.train.cut else "going on in the next"
        told.append(
            f"  longer than a row of {p.train.length:,} tokens, {then}: {_count(p.long, 'pair or chat', 'pairs or chats')}"
        )
    if p.train.masked:
        told.append(
            f"  left out, as nothing in it is learned: {_count(p.train.masked, 'stretch', 'stretches')}"
        )
    if p.train.cut:
        told.append(
            f"  {_count(p.train.cut, 'token')} {'is' if p.train.cut == 1 else 'are'} dropped, as data.truncate asks for"
        )
    return told


def _done(done: dict[str, Any]) -> str:
    dropped = f", {done['dropped']:,} of them left out" if done["dropped"] else ""
    more = f"; {done['told']}" if done.get("told") else ""
    return f"{done['rule']}: {_count(done['documents'], 'document')} changed{dropped}, {_count(done['characters'], 'character')}{more}"


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"
