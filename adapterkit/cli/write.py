"""``generate`` and ``compare``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterkit.cli import many
from adapterkit.cli.output import base_of, columns, common, emit, newest, note, table
from adapterkit.cli.prose import Prose
from adapterkit.cli.writing_flags import beside, request_options, settings, writing_options
from adapterkit.errors import AdapterKitError, NotFound, UsageProblem
from adapterkit.refs import parse_adapter
from adapterkit.registry.store import Registry

if TYPE_CHECKING:
    from adapterkit.generation.generator import Generator
    from adapterkit.generation.results import Completion


@click.command("generate", cls=Prose)
@click.argument("words", nargs=-1, metavar="ADAPTER [PROMPT]")
@click.option("-p", "--prompt", help="The prompt; '-' reads it from stdin.")
@click.option("-n", "count", type=click.IntRange(1, 256), default=1, help="How many texts.  [1]")
@click.option("--echo", is_flag=True, help="Print the prompt too, also in a pipe.")
@click.option(
    "--raw", is_flag=True, help="Leave out the start token: the prompt is not the beginning of a document."
)
@click.option(
    "--prompts", metavar="FILE", help="A text for each line, or each JSON line, of a file; with --out."
)
@click.option("--out", metavar="FILE.jsonl", help="Where the texts of --prompts go, a JSON line each.")
@request_options
@writing_options
@common
def generate_verb(
    words: tuple[str, ...], prompt: str | None, prompts: str | None, out: str | None, count: int, echo: bool,
    raw: bool, stop: tuple[str, ...], logprobs: int | None, timeout: float | None, num_beams: int | None,
    seed: int | None, device: str, base: str | None, force_base: bool, registry: str | None, as_json: bool, quiet: bool,
    **values: Any,
) -> None:  # fmt: skip
    """Write on from a prompt with an adapter.

    ADAPTER is a name (noir), a version (noir@3), base, a strength (noir=0.6)
    or a blend (noir=0.7,shanty=0.3). Without PROMPT it is read from a pipe, or
    a new document begins.
    """
    store = Registry(registry)
    told = settings(values, stop, seed) | beside(raw, echo, logprobs, timeout, as_json or out is not None)
    if num_beams is not None and num_beams > 1:
        if prompts is not None:
            raise UsageProblem("--num-beams finds one text at a time.", hint="leave --prompts out")
        told["num_beams"] = num_beams
    if prompts is not None or out is not None:
        if prompt is not None or count > 1:
            raise UsageProblem(
                "-p and -n are for one prompt; --prompts FILE has a line for each text.",
                hint="leave them out; a line may be written several times",
            )
        _generate_many(
            store, words, prompts, out, told, base, device, force_base, values["quantize"], as_json, quiet
        )
        return
    adapter, text = _understand(words, prompt, store)
    _tell_form(store, adapter, text, quiet or as_json)
    generator = _generator(store, [adapter], base, device, force_base, values["quantize"])
    if count == 1 and not as_json and "num_beams" not in told:
        show_prompt = echo or (sys.stdout.isatty() and text)
        if show_prompt:
            click.echo(click.style(text, dim=sys.stdout.isatty()), nl=False)
        stream = generator.stream(text, adapter, **told)
        for piece in stream:
            click.echo(piece, nl=False)
        click.echo()
        if stream.completion is not None:
            note(_footer(stream.completion), quiet)
            tell_forced([stream.completion], generator, quiet)
        return
    made = generator.samples(text, adapter, n=count, **told)
    if as_json:
        emit({"completions": [_record(c) for c in made]})
        return
    for i, completion in enumerate(made):
        if i:
            click.echo("-" * 40)
        click.echo((text if echo or sys.stdout.isatty() else "") + completion.text)
        note(_footer(completion), quiet)
    tell_forced(made, generator, quiet)


def _generate_many(
    store: Registry, words: tuple[str, ...], prompts: str | None, out: str | None, told: dict[str, Any],
    base: str | None, device: str, force_base: bool, quantize: str, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Texts for a file of prompts."""
    if prompts is None or out is None or len(words) != 1:
        raise UsageProblem(
            "--prompts and --out belong together, with one adapter and no prompt.",
            hint=f"adapterkit generate {words[0] if words else _any(store)} --prompts prompts.txt --out texts.jsonl",
        )
    for part in parse_adapter(words[0]):
        store[str(part.ref)]  # raises, naming the nearest, before anything is read
    jobs = many.read(Path(prompts))
    many.check(jobs, store, told)
    written = many.write(
        _generator(store, [words[0]], base, device, force_base, quantize), words[0], jobs, told, Path(out)
    )
    if as_json:
        emit({"written": written, "out": out})
    elif not quiet:
        click.echo(f"{written:,} texts in {out}")


def tell_forced(made: Iterable[Completion], generator: Generator, quiet: bool) -> None:
    """That --force-base was needed, once for each adapter."""
    for adapter in dict.fromkeys(c.adapter for c in made if c.forced_base):
        note(
            f"{adapter} was made on another base than {generator.base.id} and forced onto it (--force-base).",
            quiet,
        )


def _understand(words: tuple[str, ...], prompt: str | None, store: Registry) -> tuple[str, str]:
    """ADAPTER and PROMPT; the likeliest mistake is a prompt without an adapter or quotes."""
    if not words:
        raise UsageProblem(
            "no adapter was named.", hint=f'adapterkit generate {_any(store)} "Once upon a time"'
        )
    adapter, *rest = words
    looks_like_prose = any(c.isupper() or c == " " for c in adapter)
    try:
        known = all(str(p.ref) in store for p in parse_adapter(adapter))
    except (NotFound, UsageProblem) as e:
        known = False
        if (len(words) == 1 or isinstance(e, UsageProblem)) and not looks_like_prose:
            raise
    if not known and (len(rest) > 1 or looks_like_prose):
        said = " ".join(words)
        have = ", ".join(store.names()) or "none yet"
        raise UsageProblem(
            f"{adapter!r} is not an adapter. The adapter comes first, then the prompt in quotes.",
            hint=f"adapterkit generate {_any(store)} {_quoted(said)}     (you have {have}; 'base' is plain GPT-2)",
        )
    for part in parse_adapter(adapter) if not known else ():
        store[str(part.ref)]  # raises, naming the nearest, before anything is read
    if len(rest) > 1:
        raise UsageProblem("the prompt is more than one word and not in quotes.",
                           hint=f"adapterkit generate {adapter} {_quoted(' '.join(rest))}")  # fmt: skip
    if prompt is not None and rest:
        raise UsageProblem("the prompt was given twice.", hint="once as PROMPT or once as -p")
    text = prompt if prompt is not None else rest[0] if rest else None
    if text == "-" or (text is None and not sys.stdin.isatty()):
        text = sys.stdin.read().rstrip("\n")
    return adapter, text or ""


def _tell_form(store: Registry, adapter: str, prompt: str, quiet: bool) -> None:
    """An adapter of pairs or chats expects their form, which a plain prompt has not."""
    from adapterkit.data.template import ASSISTANT, Template, form_of

    versions = [store[str(part.ref)] for part in parse_adapter(adapter)]
    formed = ((v, form) for v in versions if (form := form_of(v.manifest.get("recipe") or {})))
    version, form = next(formed, (None, None))
    if version is None or form is None:
        return
    if isinstance(form, Template) and prompt.endswith(form.opening(ASSISTANT)):
        return
    learned = "a chat" if isinstance(form, Template) else "pairs"
    remedy = f"adapterkit chat {shlex.quote(adapter)} wraps your words"
    if not isinstance(form, Template) and not form.asked:
        learned, remedy = f"pairs that begin with {form.text!r}", "write your words in that form"
    note(f"{version.ref} was trained on {learned}: {remedy}; generate goes on from them as they are", quiet)


def _quoted(prompt: str) -> str:
    """A prompt as one word of the shell, between the quotes that a person would type if they do."""
    return shlex.quote(prompt) if set(prompt) & set('"$`\\!') else f'"{prompt}"'


def _any(store: Registry) -> str:
    made = newest(store.versions())
    return made.name if made else "base"


def _generator(
    store: Registry, adapters: list[str], base: str | None, device: str, force_base: bool, quantize: str
) -> Generator:
    chosen = base_of(store, adapters, base)
    from adapterkit.generation.generator import Generator  # torch loads here

    return Generator(chosen, registry=store, device=device, quantize=quantize, force_base=force_base)


def _footer(c: Completion) -> str:
    digests = " ".join(d[:8] for d in c.digests)
    cut = {
        "length": ", cut there (--max-new-tokens)",
        "cancelled": ", stopped",
        "timeout": ", time was up",
        "error": ", the numbers overflowed",
    }
    lost = (
        f" · the first {c.usage.cut_tokens:,} tokens of the prompt were left out"
        if c.usage.cut_tokens
        else ""
    )
    by = f", ended at {c.stopped_by!r}" if c.finish_reason == "stop" and c.stopped_by != "end-of-text" else ""
    end = cut.get(c.finish_reason, by or ", ended by itself")
    who = f"{c.adapter} {digests}".strip()
    return f"{who} · {c.usage.new_tokens} tokens{end} · {c.seconds:.1f} s · seed {c.seed}{lost}"


def _record(c: Completion) -> dict[str, Any]:
    return asdict(c) | {"full_text": c.full_text}


@click.command("compare")
@click.argument("adapters", nargs=-1, required=True, metavar="ADAPTER ADAPTER...")
@click.option("-p", "--prompt", "prompts", multiple=True, help="A prompt; several allowed.  [the recipe's]")
@writing_options
@common
def compare_verb(
    adapters: tuple[str, ...], prompts: tuple[str, ...], stop: tuple[str, ...], seed: int | None, device: str,
    base: str | None, force_base: bool, registry: str | None, as_json: bool, quiet: bool, **values: Any,
) -> None:  # fmt: skip
    """Several adapters on one prompt, same seed, side by side."""
    if len(adapters) < 2:
        raise UsageProblem(
            "compare needs two adapters or more.", hint=f"adapterkit compare base {adapters[0]}"
        )
    store = Registry(registry)
    for adapter in adapters:
        if not all(str(p.ref) in store for p in parse_adapter(adapter)):
            [store[str(p.ref)] for p in parse_adapter(adapter)]  # raises, naming the nearest
    told = {"max_new_tokens": 60} | settings(values, stop, 17 if seed is None else seed)
    generator = _generator(store, list(adapters), base, device, force_base, values["quantize"])
    asked = prompts or tuple(_recipe_prompts(store, adapters))
    made = [generator.compare(p, list(adapters), **told) for p in asked]
    if as_json:
        emit({"comparisons": [{"prompt": c.prompt, "completions": [_record(x) for x in c]} for c in made]})
        return
    s = made[0].completions[0].sampling
    click.echo(f"same seed {made[0].completions[0].seed}, temperature {s.temperature:g}, top-p {s.top_p:g}")
    names = [c.adapter for c in made[0]]
    _scores(store, adapters, names)
    for comparison in made:
        click.echo(f"\n{comparison.prompt or '(a new document)'}")
        texts = [c.text.strip() for c in comparison]
        if len(texts) <= 3:
            click.echo(columns([f"{n}" for n in names]))
            click.echo(columns(texts))
            continue
        room = max(map(len, names))
        for name, text in zip(names, texts, strict=True):
            click.echo(f"  {name:<{room}}  {' '.join(text.split())}")
    if differently := _made_differently(store, adapters):
        click.echo(f"\n{differently}")
    tell_forced((c for comparison in made for c in comparison), generator, quiet)


def _made_differently(store: Registry, adapters: tuple[str, ...]) -> str:
    """``made differently: lora.r 8 → 16`` for two versions; empty for anything else."""
    parts = [parse_adapter(a) for a in adapters]
    if len(parts) != 2 or any(len(p) != 1 for p in parts):
        return ""
    from adapterkit.cli.differences import compared

    a, b = (store[str(p.ref)] for each in parts for p in each)
    told = [f"{key} {left} → {right}" for key, left, right in (row.cells for row in compared(a, b))]
    more = [f"{len(told) - 3} more"] if len(told) > 3 else []
    return (
        f"made differently: {', '.join([*told[:3], *more])}          adapterkit diff {a.ref} {b.ref}"
        if told
        else ""
    )


def _recipe_prompts(store: Registry, adapters: tuple[str, ...]) -> list[str]:
    for adapter in adapters:
        for part in parse_adapter(adapter):
            recipe = store[str(part.ref)].manifest.get("recipe") or {}
            if found := recipe.get("sample", {}).get("prompts"):
                return list(found[:2])
    return [""]


def _scores(store: Registry, adapters: tuple[str, ...], names: list[str]) -> None:
    """Stored scores, when all single adapters were tested on the same text."""
    try:
        versions = [store[str(parts[0].ref)] for a in adapters if len(parts := parse_adapter(a)) == 1]
    except AdapterKitError:
        return
    texts = {v.metrics.held_out for v in versions}
    if not versions or len(texts) != 1 or None in texts:
        return
    base = versions[0].metrics.base_perplexity
    known = {v.ref: v.metrics.perplexity for v in versions} | {"base": base}
    cells = [f"{known[n]:.1f}" if known.get(n) else "-" for n in names]
    click.echo(table([["", *names], ["perplexity", *cells]], indent="  "))
