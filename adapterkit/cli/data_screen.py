"""The report on a text as a screen: counts, a histogram, what was done to it, advice, samples."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from adapterkit.cli.output import width

if TYPE_CHECKING:
    from adapterkit.data.excerpts import Sample, Segment
    from adapterkit.data.report import DataReport

BAR = 40  # places of the longest bar
LABEL = 13
END = "⟨end⟩"
# One place each while lines are wrapped, what is seen afterwards; text with these characters in it loses them.
DIM, PLAIN = "\ue000", "\ue001"
# A text may hold control characters, which a terminal would obey.
HARMLESS = {c: 0x2400 + c for c in range(32) if c not in (9, 10)} | {0x7F: 0x2421, 0xE000: None, 0xE001: None}
HARMLESS |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def page(report: DataReport, base: str, *, styled: bool) -> list[str]:
    """Lines of the whole report.

    Args:
        report: what to show.
        base: named in the first line.
        styled: for a terminal: prompts are dim, and not in brackets.
    """
    lines = [*_head(report, base), "", *_counts(report), "", *_histogram(report)]
    for part in (_done(report), _remarks(report), _advice(report)):
        lines += ["", *part] if part else []
    left = "⟨cut⟩" if "truncated" in report.tokens.dropped else "⟨goes on⟩"
    for i, sample in enumerate(report.samples, 1):
        lines += ["", *_sample(sample, f"sample {i} of {len(report.samples)}", styled, left)]
    return lines


def _head(r: DataReport, base: str) -> list[str]:
    files = f"{r.files:,} {_plural(r.files, 'file')}"
    return _wrapped(
        f"{r.source.translate(HARMLESS)}: {files}, {r.words:,} words in {r.documents.kept:,} "
        f"{_plural(r.documents.kept, 'document')} ({r.document}), for base {base} in rows of {r.rows.length:,} tokens"
    )


def _counts(r: DataReport) -> list[str]:
    d, t = r.documents, r.tokens
    told = [
        ("learned", f"{t.learned:,} tokens of {d.learned:,} {_plural(d.learned, 'document')}, each once a pass"),
        ("tested on", _tested(r)),
        ("only read", f"{t.context:,} tokens in front of what is learned, such as prompts" if t.context else ""),
        ("dropped", _dropped(r)),
        ("rows", f"{r.rows.rows:,} to learn from with {r.rows.slots:,} slots, {_share(r.rows.padded, r.rows.slots)} of them "
                 f"padding; {r.held_out_rows.rows:,} to test on"),
        ("characters", f"{r.characters:,} kept of {r.characters_read:,} read"),
    ]  # fmt: skip
    return [line for name, text in told if text for line in _fact(name, text)]


def _tested(r: DataReport) -> str:
    if r.held_out is None:
        return "nothing: how good it gets will not be known"
    h = r.held_out
    return f"{h.tokens:,} tokens never learned ({_share(h.tokens, h.tokens + r.tokens.learned)}): {h.count:,} {_singular(h.unit, h.count)}"


def _dropped(r: DataReport) -> str:
    d = r.documents
    tokens = ", ".join(f"{n:,} tokens {why}" for why, n in r.tokens.dropped.items())
    documents = ", ".join(f"{n:,} {_plural(n, 'document')} ({why})" for why, n in d.dropped.items())
    blank = f"{d.blank:,} blank" if d.blank > r.files else ""  # a file's last line break leaves one
    rows = f"{d.rows_without_text:,} {_plural(d.rows_without_text, 'row')} without text"
    parts = [tokens, documents, blank, rows if d.rows_without_text else ""]
    return "; ".join(p for p in parts if p) or "nothing"


def _histogram(r: DataReport) -> list[str]:
    n = r.lengths
    spread = f" to {n.longest:,}, half have {n.median:,} or fewer" if n.longest > n.shortest else ""
    title = f"Tokens a document: {n.shortest:,}{spread}"
    most = max(count for _, _, count in n.bins)
    names = [f"{begin:,}–{end:,}" for begin, end, _ in n.bins]
    room, digits = max(map(len, names)), len(f"{most:,}")
    lines = [
        f"  {name:>{room}}  {count:>{digits},}  {'▇' * max(round(BAR * count / most), count > 0)}".rstrip()
        for name, (_, _, count) in zip(names, n.bins, strict=True)
    ]
    return [title, *lines]


def _done(r: DataReport) -> list[str]:
    lines = []
    for rule in r.cleaning:
        lines += _fact("cleaned", _rule(rule))
        for before, after in rule.get("examples", [])[:1]:
            lines += _fact("", f"{_one_line(before)}  →  {_one_line(after) or '(left out)'}")
    if r.reflowed:
        names = _some(list(r.reflowed), len(r.reflowed))
        lines += _fact("joined", f"lines broken at a column in {names} (--no-reflow keeps them)")
    return lines


def _rule(rule: Mapping[str, Any]) -> str:
    n = rule["documents"]
    parts = [
        f"{rule['rule']}: {n:,} {_plural(n, 'document')} touched" if n else f"{rule['rule']}: nothing to do",
        f"{rule['dropped']:,} of them left out" if rule["dropped"] else "",
        f"{rule['characters']:,} characters fewer" if rule["characters"] > 0 else "",
        f"{rule['ends_lost']:,} ends lost" if rule.get("ends_lost") else "",
        str(rule.get("told", "")),
    ]
    return ", ".join(p for p in parts if p)


def _remarks(r: DataReport) -> list[str]:
    c, cut = r.copies, "truncated" in r.tokens.dropped
    copies = (
        f"{c.exact:,} documents are there more than once ({c.surplus:,} too many)"
        if c.exact
        else "no document is there twice"
    )
    if not c.near_looked_for:
        near = "near-copies are not looked for in so much text"
    else:
        near = (
            f"{c.groups:,}{' or more' if c.groups >= 1000 else ''} group{'s' * (c.groups != 1)} of near-copies"
            if c.groups
            else "no near-copies"
        )
    leaks = (
        f"{c.leaks:,} hold most of one that is tested on, {'left out' if c.leaks_removed else 'still learned'}"
        if c.leaks
        else ""
    )
    told = [
        ("copies", "; ".join(p for p in (copies, near, leaks) if p)),
        ("unreadable", f"{r.unreadable.count:,}: {_some(r.unreadable.first, r.unreadable.count)}" if r.unreadable.count else ""),
        ("bad rows", f"{r.bad_rows.count:,}: {_some(r.bad_rows.first, r.bad_rows.count)}" if r.bad_rows.count else ""),
        ("no pair", f"{r.unpaired:,} {_plural(r.unpaired, 'document')} without the separator, learned whole" if r.unpaired else ""),
        ("goes on", f"pairs or chats longer than a row, which go on in the next: {r.split_documents:,}" if r.split_documents and not cut else ""),
        ("a token", r.tokenizer_hint or f"{r.bytes_per_token:.1f} bytes"),
    ]  # fmt: skip
    return [line for name, text in told if text for line in _fact(name, text)]


def _advice(r: DataReport) -> list[str]:
    a = r.advice
    lines = _fact("context", f"{a.context:,}: {a.context_why}")
    lines += _fact("passes", f"up to {a.epochs}: {a.epochs_why}")
    return lines + (_fact("refused", r.refused) if r.refused else [])


# --- samples ------------------------------------------------------------------


def _sample(sample: Sample, title: str, styled: bool, left: str) -> list[str]:
    use = "tested on, never learned" if sample.held_out else "learned"
    part = "" if sample.begins and sample.ends else ", a part of it"
    head = f"{title}  {sample.source.translate(HARMLESS)}{part}  ({use}: {sample.tokens:,} tokens)"
    text = "".join(_shown(s, styled) for s in sample.segments)
    begun = "" if sample.begins else "⟨goes on⟩ "
    whole = begun + text + (END if sample.ends else f" {left}")
    lines = [line for part in whole.split("\n") for line in _broken(part)]
    return [head, *(f"  {line}".rstrip() for line in _styled(lines))]


def _shown(segment: Segment, styled: bool) -> str:
    if segment.left_out:
        return f" ⟨{segment.left_out:,} characters⟩ "
    text = segment.text.translate(HARMLESS)
    if segment.learned:
        return text
    if styled:
        return f"{DIM}{text}{PLAIN}"
    trimmed = text.rstrip()  # the brackets close at the end of a line, not on the next one
    return f"[[{trimmed}]]{text[len(trimmed) :]}"


def _broken(line: str) -> list[str]:
    return textwrap.wrap(line, width() - 2, replace_whitespace=False, break_on_hyphens=False) or [""]


def _styled(lines: list[str]) -> Iterator[str]:
    """Marks as dim text, on again at the begin of each line that goes on dim."""
    dim = False
    for line in lines:
        begun, last = dim, max(line.rfind(DIM), line.rfind(PLAIN))
        dim = line[last] == DIM if last >= 0 else dim
        told = (DIM if begun else "") + line + (PLAIN if dim else "")
        yield told.replace(DIM, "\033[2m").replace(PLAIN, "\033[0m")


# --- words --------------------------------------------------------------------


def _fact(name: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, width() - LABEL - 2, break_on_hyphens=False)
    return [f"  {name if i == 0 else '':<{LABEL}}{line}" for i, line in enumerate(lines)]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, width(), subsequent_indent="  ")


def _some(names: list[str] | tuple[str, ...], count: int) -> str:
    shown = ", ".join(n.translate(HARMLESS) for n in names[:3])
    return shown + (f" and {count - 3:,} more" if count > 3 else "")


def _one_line(text: str) -> str:
    return " ".join(text.translate(HARMLESS).split())


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _singular(unit: str, count: int) -> str:
    return unit.replace("documents", "document").replace("passages", "passage") if count == 1 else unit
