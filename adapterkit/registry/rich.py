"""A version as HTML: the pieces that notebooks and the private report share.

Every text comes from a person or a model and is escaped here. No class names,
no scripts, nothing to fetch: a notebook keeps the piece as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape as markup

from adapterkit.registry import curve
from adapterkit.registry.version import Metrics, Sample, Version

SHOWN = 3  # samples in a notebook
LONGEST = 600  # characters of a sample in a notebook
LEFT = 'style="text-align:left"'
# Control characters as their pictures: a base writes any byte, and HTML allows few of them.
VISIBLE = {c: 0x2400 + c for c in range(32) if c not in (9, 10)} | {0x7F: 0x2421}
VISIBLE |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def version(v: Version) -> str:
    """``Version._repr_html_``: table, curve, three samples."""
    title = f"<b>{escape(v.ref)}</b> {v.digest[:8]}" + (f", {escape(v.note)}" if v.note else "")
    picture = curve.svg(v.history(), v.metrics.base_loss)
    shown = samples(v.samples()[:SHOWN], longest=LONGEST)
    return f"<div><p>{title}</p>{scores(v.metrics, v.base, v.ref)}{picture}{shown}</div>"


def scores(m: Metrics, base: str, adapter: str, more: Iterable[tuple[str, str, str, str]] = ()) -> str:
    """The table of base against adapter; what was not measured says so.

    Args:
        base, adapter: names of the columns.
        more: rows (what, base, adapter, change), plain text.
    """
    rows = [_perplexity(m), _stops(m), _copied(m), *more]
    head = "".join(f"<th>{escape(cell)}</th>" for cell in ("", base, adapter, ""))
    body = "".join(
        f"<tr><th {LEFT}>{escape(name)}</th>"
        + "".join(f"<td {LEFT}>{escape(c)}</td>" for c in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def samples(shown: Sequence[Sample], longest: int | None = None) -> str:
    """Prompt in bold, then what the adapter wrote; the base's text below when there is one."""
    return "".join(_sample(s, longest) for s in shown)


def percent(share: float) -> str:
    """``−32 %``, with its sign."""
    return f"{'−' if share < 0 else '+'}{abs(share) * 100:.0f} %"


def escape(text: str) -> str:
    """A text of anyone's, to be shown and never obeyed, in content or in a quoted attribute."""
    return markup(text.translate(VISIBLE))


def passage(text: str, longest: int | None = None) -> str:
    """Escaped, with its line breaks."""
    cut = text if longest is None or len(text) <= longest else text[:longest] + " …"
    return f'<span style="white-space:pre-wrap">{escape(cut)}</span>'


def _perplexity(m: Metrics) -> tuple[str, str, str, str]:
    name = "perplexity on unseen text"
    if m.perplexity is None or m.base_perplexity is None or m.gain is None:
        return name, "", "not tested", ""
    on = f"on {m.tokens:,} tokens" if m.tokens else ""
    return name, f"{m.base_perplexity:.1f}", f"{m.perplexity:.1f}", f"{percent(m.gain)} {on}".strip()


def _stops(m: Metrics) -> tuple[str, str, str, str]:
    if m.stops is None:
        return "ends by itself", "", "not expected", "documents are longer than samples"
    return "ends by itself", "", f"{m.stops:.0%}", "of samples"


def _copied(m: Metrics) -> tuple[str, str, str, str]:
    told = f"{m.copied_words:,} words" if m.copied_words is not None else "unknown"
    return "longest run copied", "", told, "over 30 would be copying" if m.copied_words is not None else ""


def _sample(s: Sample, longest: int | None) -> str:
    prompt = f"<b>{passage(s.prompt)}</b>" if s.prompt else ""
    base = "" if s.base_text is None else f'<p style="opacity:.65">base: {passage(s.base_text, longest)}</p>'
    return f"<p>{prompt}{passage(s.text, longest)}</p>{base}"
