"""``chat``: a text written in turns, with commands that begin with a slash."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterkit.cli.output import base_of, common, newest, note
from adapterkit.cli.writing_flags import SAMPLING, settings, writing_options
from adapterkit.errors import AdapterKitError, NotFound, UsageProblem
from adapterkit.files import shown
from adapterkit.recipe import yaml12
from adapterkit.registry.store import Registry

if TYPE_CHECKING:
    from adapterkit.generation.session import Pieces, Session

HELP = """\
  Enter alone        go on              /retry             the last passage again
  /use ADAPTER       another writer     /list              adapters there are
  /set KEY VALUE     temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens, stop ...
  /undo              one turn back      /clear             a new text
  /save FILE         the text, and how it came about        /help   this
  Ctrl-C stops the text, Ctrl-D leaves"""
WORDS_A_TOKEN = 0.75
PAIRS = "It was trained on pairs: each line you type is asked by itself, without those before."
PASSAGE = 60  # tokens that a text grows by in a turn; an answer has the length its adapter gives it


@click.command("chat")
@click.argument("adapter", required=False)
@click.option("--raw", is_flag=True, help="Leave the text as typed, without the adapter's template.")
@writing_options
@common
def chat_verb(
    adapter: str | None, raw: bool, stop: tuple[str, ...], seed: int | None, device: str, base: str | None, force_base: bool,
    registry: str | None, as_json: bool, quiet: bool, **values: Any,
) -> None:  # fmt: skip
    """Write together with an adapter, turn by turn."""
    store = Registry(registry)
    chosen = adapter or _newest(store)
    its_base = base_of(store, [chosen], base)  # also the check of the name, before torch
    from adapterkit.generation.generator import Generator  # torch loads here
    from adapterkit.generation.session import Session

    generator = Generator(
        its_base, registry=store, device=device, quantize=values["quantize"], force_base=force_base
    )
    told = settings(values, stop, seed)
    asked = told.pop("overflow", None)  # of a prompt its beginning is left out, here it slides
    session = Session(
        generator, chosen, wrap=not raw, overflow="error" if asked == "error" else "slide", **told
    )
    context = int(generator.base.context * WORDS_A_TOKEN)
    note(
        f"{session.adapter} on {generator.base.id}, {generator.device.place.type}. {_manner(session)} "
        f"It remembers about {context} words.",
        quiet,
    )
    note(
        "Enter alone: go on · /retry · /undo · /use ADAPTER · /help · Ctrl-C stops the text, Ctrl-D leaves",
        quiet,
    )
    Chat(session, store).run()


def _newest(store: Registry) -> str:
    made = newest(store.versions())
    if made is None:
        raise NotFound(
            f"there is no adapter in {shown(store.path)} yet.",
            hint="adapterkit demo, or adapterkit chat base",
        )
    return made.name


def _manner(session: Session) -> str:
    """What becomes of the words one types."""
    from adapterkit.data.template import Prompt, Template

    form = session.form
    if isinstance(form, Template):
        return f"It was trained on a chat: what you type is sent as {form.turn('user', '...').strip()!r}."
    if isinstance(form, Prompt) and form.asked:
        return PAIRS
    if isinstance(form, Prompt):
        return f"It was trained on pairs that begin with {form.text!r}; what you type is left as it is."
    return "GPT-2 goes on with what you write; it does not answer questions."


def _wraps(session: Session) -> bool:
    from adapterkit.data.template import Prompt

    form = session.form
    return bool(form.asked if isinstance(form, Prompt) else form)


class Chat:
    """Reads lines, runs commands, shows passages."""

    def __init__(self, session: Session, store: Registry) -> None:
        self._session, self._store = session, store
        self._forgot = False
        self._forced: set[str] = set()  # adapters on another base, told already
        self._length_is_asked = "max_new_tokens" in session.sampling
        self._suit()
        self._commands: dict[str, Callable[[str], None]] = {
            "use": self._use, "list": self._list, "set": self._set, "retry": self._retry, "undo": self._undo,
            "clear": self._clear, "save": self._save, "help": lambda _: click.echo(HELP),
        }  # fmt: skip

    def run(self) -> None:
        """Until Ctrl-D or the end of a pipe."""
        with _line_editing():
            while (line := _ask()) is not None:
                with _shown_errors():
                    self._turn(line)

    def _suit(self) -> None:
        """The length that suits the adapter, unless one was asked for."""
        if self._length_is_asked:
            return
        self._session.sampling.pop("max_new_tokens", None)
        if not _wraps(self._session):
            self._session.sampling["max_new_tokens"] = PASSAGE

    def _turn(self, line: str) -> None:
        if not line.startswith("/"):
            # what is typed goes on in the same paragraph, after a space unless the text just began
            text = "" if _wraps(self._session) else self._session.text
            gap = " " if text and line and not text[-1].isspace() else ""
            self._write(self._session.stream(gap + line))
            return
        word, _, rest = line[1:].strip().partition(" ")
        if word not in self._commands:
            raise UsageProblem(
                f"there is no command /{word}.", hint=" ".join(f"/{c}" for c in self._commands)
            )
        self._commands[word](rest.strip())

    def _write(self, pieces: Pieces) -> None:
        # closing them ends the writing, of an interrupted one too
        with suppress(KeyboardInterrupt), closing(pieces):
            for piece in pieces:
                click.echo(piece, nl=False)
        click.echo()
        last = self._session.last
        if last is not None and last.forced_base and last.adapter not in self._forced:
            self._forced.add(last.adapter)
            note(f"{last.adapter} was made on another base; it writes on this one because of --force-base")
        if self._session.forgotten and not self._forgot:
            self._forgot = True
            note(f"the first {self._session.forgotten} words are no longer seen")

    def _use(self, rest: str) -> None:
        if not rest:
            raise UsageProblem(
                "/use needs an adapter.", hint="/list shows them; a blend: /use noir=0.5,shanty=0.5"
            )
        before = _manner(self._session)
        self._session.switch(rest)
        self._suit()
        manner = _manner(self._session)
        again = " (the text so far is read again in the new voice)" if manner != PAIRS else ""
        click.echo(f" now {self._session.adapter}{again}")
        if manner != before:
            click.echo(f" {manner}")

    def _list(self, rest: str) -> None:
        for shelf in self._store.shelves():
            for version in shelf.alive[-1:]:
                click.echo(f"  {version.ref:<20} {version.note}")
        click.echo("  base                 plain GPT-2")

    def _set(self, rest: str) -> None:
        key, value = (*re.split("[= ]", rest, maxsplit=1), "")[:2]
        if key not in (*SAMPLING, "stop", "seed") or not value:
            raise UsageProblem(
                f"/set {rest!r} is not a setting.",
                hint=f"/set KEY VALUE with {', '.join(SAMPLING)}, stop, seed",
            )
        is_text = key in ("stop", "logit_bias")
        wanted = _unescaped(value) if is_text else yaml12.scalar(value.strip())
        from adapterkit.generation.asking import asked
        from adapterkit.generation.sampling import Sampling

        Sampling().with_(
            **asked({key: wanted}).changes
        )  # refuses what is out of its limits, before it is kept
        self._session.sampling[key] = wanted
        self._length_is_asked |= key == "max_new_tokens"
        click.echo(f" {key} is {wanted!r}")

    def _retry(self, rest: str) -> None:
        if not self._session.passages:
            raise UsageProblem("there is no passage yet.", hint="write something first")
        self._write(self._session.stream_retry())

    def _undo(self, rest: str) -> None:
        said = self._session.undo()
        click.echo(f" took back {said!r} and what followed" if said else " took the last passage back")

    def _clear(self, rest: str) -> None:
        self._session.clear()
        click.echo(" a new text")

    def _save(self, rest: str) -> None:
        if not rest:
            raise UsageProblem("/save needs a file.", hint="/save letter.txt")
        path, *beside = self._session.save(rest)
        told = f", and {beside[0]}" if beside else ""
        click.echo(f" saved {path}{told} with adapter, seed and settings of each passage")


def _unescaped(typed: str) -> str:
    r"""A text with its ``\n``, ``\t`` and ``\\``; everything else as it was typed."""
    return re.sub(r"\\([nt\\])", lambda found: {"n": "\n", "t": "\t"}.get(found[1], "\\"), typed)


class _shown_errors:
    """A deliberate error is shown and the chat goes on."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, AdapterKitError):
            click.echo(f" {error.message}" + (f"\n {error.hint}" if error.hint else ""), err=True)
            return True
        return False


class _line_editing:
    """Arrow keys and a history over sessions, where the terminal has them."""

    def __enter__(self) -> None:
        self._file: Path | None = None
        if not sys.stdin.isatty():
            return
        with suppress(ImportError, OSError):
            import readline

            from adapterkit.cache import cache_folder

            self._file = cache_folder() / "chat-history"
            if self._file.exists():
                readline.read_history_file(self._file)
            readline.set_history_length(1000)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(ImportError, OSError):
                import readline

                readline.write_history_file(self._file)
                os.chmod(self._file, 0o600)


def _ask() -> str | None:
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            if sys.stdin.isatty():
                click.echo()
            return None
        except KeyboardInterrupt:
            click.echo()  # stops the line being typed, not the chat
