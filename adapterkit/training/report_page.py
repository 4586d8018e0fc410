"""The private report of a run: one page that needs nothing but itself.

It quotes the person's own text, so it lies in ``private/`` and never travels.
Every text in it is escaped, nothing is fetched, no script runs; of places on
this machine it knows only names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from adapterkit.data.excerpts import Sample as Excerpt
from adapterkit.data.report import DataReport
from adapterkit.recipe.keys import keys
from adapterkit.registry import curve
from adapterkit.registry.rich import escape, scores
from adapterkit.registry.version import Metrics, Point, Sample
from adapterkit.training.report_style import POLICY, STYLE

EVALUATIONS = 40  # rows of samples on the way, of a long run not all
KINDS = {"lora": "LoRA adapter", "full": "full fine-tune"}


@dataclass(frozen=True)
class Account:
    """Everything the page tells."""

    manifest: Mapping[str, Any]  # as it is published, the number not known yet
    made: datetime
    verdict: str  # one sentence; empty when nothing was tested
    points: Sequence[Point]
    base_loss: float | None  # nats a token on the held-out text
    sampled: Sequence[tuple[int, Sample]]  # (step, text) at each evaluation
    samples: Sequence[Sample]  # by the weights that were kept
    data: DataReport
    drawing: Sequence[str]  # lines of one packed row, see data/picture.py
    origins: Mapping[str, str]  # recipe key -> where its value came from


def page(told: Account) -> str:
    """The whole page as HTML."""
    name = escape(told.manifest["name"])
    return "".join(
        [
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}, training report</title>',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta name="robots" content="noindex"><style>{STYLE}</style></head><body>\n',
            *_sections(told, name),
            "</body></html>\n",
        ]
    )


def _sections(told: Account, name: str) -> Iterator[str]:
    yield _head(told, name)
    yield f'<div class="wide">{_scores(told)}</div>'
    yield f'<p class="verdict">{escape(told.verdict)}</p>' if told.verdict else ""
    yield _section("Training", curve.svg(told.points, told.base_loss) + _fate(told.points))
    yield _section("How the style came", _on_the_way(told)) if told.sampled else ""
    yield _section("Samples", "".join(map(_final, told.samples))) if told.samples else ""
    yield _section("Text", _text(told))
    yield _section("Recipe", _recipe(told.manifest["recipe"], told.origins))
    yield _section("Environment", _table((), sorted(told.manifest["environment"].items())))


# --- head ---


def _head(told: Account, name: str) -> str:
    m, data = told.manifest, told.manifest["data"]
    source = data["source"] if isinstance(data["source"], str) else ", ".join(data["source"])
    return (
        f'<h1>{name}</h1><p class="dim">{told.made:%d %B %Y, %H:%M} {told.made:%Z} · {KINDS[m["kind"]]} of '
        f"{escape(m['base']['id'])} · {escape(source)}: {data['documents']:,} documents, {data['words']:,} words</p>"
    )


def _scores(told: Account) -> str:
    m = Metrics(**told.manifest["metrics"])
    last = told.points[-1] if told.points else None
    more = []
    if m.loss is not None and m.base_loss is not None:
        more.append(
            (
                "loss, nats a token",
                f"{m.base_loss:.3f}",
                f"{m.loss:.3f}",
                f"{m.loss - m.base_loss:+.3f}".replace("-", "−"),
            )
        )
    if last is not None:
        speed = f"{last.tokens / last.seconds:,.0f} tokens a second" if last.seconds else ""
        more.append(("tokens learned", "", f"{last.tokens:,}", f"in {last.step:,} steps"))
        more.append(("time", "", duration(last.seconds), speed))
    return scores(m, told.manifest["base"]["id"], told.manifest["name"], more)


def duration(seconds: float) -> str:
    """``1 h 2 min``, ``3 min 18 s``, ``9 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# --- the run ---


def _fate(points: Sequence[Point]) -> str:
    told = curve.lines(points)
    if told.best is None:
        return '<p class="dim">Nothing was held out, so nothing was tested: the last weights were kept.</p>'
    step, loss = told.best
    return f'<p class="dim">The weights of step {step:,} were kept (held-out loss {loss:.3f}); training ended at step {told.last_step:,}.</p>'


def _on_the_way(told: Account) -> str:
    held_out = dict(curve.lines(told.points).held_out)
    rows = [
        (f"{step:,}", f"{held_out[step]:.3f}" if step in held_out else "", f"{s.prompt}{s.text}".strip())
        for step, s in curve.thinned(told.sampled, EVALUATIONS)
    ]
    return _table(("step", "held out", "text"), rows)


def _final(s: Sample) -> str:
    prompt = f"<h3>{escape(s.prompt)}</h3>" if s.prompt.strip() else "<h3>A new document</h3>"
    if s.base_text is None:
        return prompt + _written(s.text)
    by = (("adapter", s.text), ("base", s.base_text))
    sides = "".join(f'<div><p class="dim">{who}</p>{_written(text)}</div>' for who, text in by)
    return f'{prompt}<div class="pair">{sides}</div>'


def _written(text: str) -> str:
    told = escape(text) if text.strip() else '<span class="dim">(nothing: it ended at once)</span>'
    return f'<div class="text">{told}</div>'


# --- the text ---


def _text(told: Account) -> str:
    drawn = "\n".join(told.drawing)
    return "".join(
        [
            f'<div class="wide">{told.data._repr_html_()}</div>',
            _listed(_remarks(told.data)),
            "<h3>Tokens a document</h3>" + _histogram(told.data) if told.data.lengths.bins else "",
            "<h3>As it is learned</h3>" if told.data.samples else "",
            *map(_excerpt, told.data.samples),
            f"<h3>One row</h3><pre>{escape(drawn)}</pre>" if drawn else "",
        ]
    )


def _remarks(d: DataReport) -> Iterator[str]:
    yield from (f"{n:,} documents left out: {why}" for why, n in d.documents.dropped.items())
    yield from (f"{n:,} tokens dropped: {why}" for why, n in d.tokens.dropped.items())
    yield from (f"{rule['rule']}: {rule['documents']:,} documents touched" for rule in d.cleaning)
    if d.reflowed:
        yield "lines broken at a column were joined in " + ", ".join(d.reflowed)
    for names, what in ((d.unreadable, "files could not be read"), (d.bad_rows, "rows were malformed")):
        if names.count:
            yield f"{names.count:,} {what}: {', '.join(names.first)}"
    if d.copies.exact:
        yield f"{d.copies.exact:,} documents are there more than once"
    if d.copies.leaks:
        yield f"{d.copies.leaks:,} training documents hold most of one that is tested on"
    if d.tokenizer_hint:
        yield d.tokenizer_hint


def _histogram(d: DataReport) -> str:
    most = max(count for _, _, count in d.lengths.bins)
    bars = "".join(
        f'<tr><th>{a:,} to {b:,}</th><td>{n:,}</td><td><span class="bar" style="width:{0.1 + 14 * n / most:.1f}rem"></span></td></tr>'
        for a, b, n in d.lengths.bins
    )
    return f'<div class="wide"><table><tbody>{bars}</tbody></table></div>'


def _excerpt(s: Excerpt) -> str:
    parts = [
        f'<span class="dim">[{p.left_out:,} characters]</span>' if p.left_out
        else escape(p.text) if p.learned else f'<span class="dim">{escape(p.text)}</span>'
        for p in s.segments
    ]  # fmt: skip
    use = "tested on, never learned" if s.held_out else "learned"
    end = ' <span class="dim">⟨end⟩</span>' if s.ends else ""
    return (
        f'<p class="dim">{escape(s.source)}, {s.tokens:,} tokens, {use}</p>'
        f'<div class="text{" held" if s.held_out else ""}">{"".join(parts)}{end}</div>'
    )


# --- recipe ---


def _recipe(recipe: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    rows = []
    for path, key in keys().items():
        value = _at(recipe, path)
        why = "auto" if key.default == "auto" and value != "auto" else "default"
        rows.append((path, _shown(value), origins.get(path, why)))
    return _table(("key", "value", "from"), rows)


def _at(recipe: Mapping[str, Any], path: str) -> Any:
    value: Any = recipe
    for part in path.split("."):
        value = value[part]
    return value


def _shown(value: Any) -> str:
    """As a recipe file has it."""
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- pieces ---


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are plain text; the first of a row names it."""
    top = f"<thead><tr>{''.join(f'<th>{escape(h)}</th>' for h in head)}</tr></thead>" if head else ""
    body = "".join(
        f"<tr><th>{escape(str(first))}</th>{''.join(f'<td>{escape(str(cell))}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f'<div class="wide"><table>{top}<tbody>{body}</tbody></table></div>'


def _listed(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""
