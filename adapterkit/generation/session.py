"""A text that grows: what one says, what it writes, and who writes next."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator as Yields
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from adapterkit.data.template import ASSISTANT, Prompt, Template, form_of
from adapterkit.errors import PromptTooLong, Unsupported, UsageProblem
from adapterkit.files import write_whole
from adapterkit.generation.asking import Memory
from adapterkit.generation.generator import Adapter, Generator
from adapterkit.generation.results import Completion, Stream

Pieces = Yields[str, None, None]


@dataclass(frozen=True)
class Passage:
    """What was written in one turn, by whom and how."""

    said: str
    text: str
    adapter: str  # resolved, as in Completion
    digests: tuple[str, ...]
    seed: int
    settings: dict[str, Any]  # those of the session; others are the adapter's
    finish_reason: str
    forced_base: bool = False


@dataclass
class _Turn:
    """How things stood before something was said, what that was, and what came of it."""

    text: str
    ended: bool
    begins: int
    said: str
    passage: Passage | None = None


class Session:
    """A running text with one generator.

    The text so far is read again at every turn, so a switch of the adapter in
    the middle gives what the new one makes of the whole. When it grows past
    what the base sees, its beginning slides out of sight (``forgotten`` words),
    or that is an error (``overflow="error"``).

    An adapter that learned from a chat is spoken to as it was there, ``User:
    ...``; of one that learned from pairs each turn is asked by itself, as each
    pair was a document of its own. Others go on with the text as it is.

    Args:
        generator: what writes.
        adapter: None or "base", a ref, a blend.
        wrap: False leaves what is said as it is, whatever the adapter learned from.
        overflow: what becomes of a text that is longer than the base sees: "slide"
            lets its beginning go, "error" is PromptTooLong, and the turn did not happen.
        sampling: as for the generator.

    Raises:
        UsageProblem: an overflow that is none.
    """

    def __init__(
        self,
        generator: Generator,
        adapter: Adapter = None,
        *,
        wrap: bool = True,
        overflow: Literal["slide", "error"] = "slide",
        **sampling: Any,
    ) -> None:
        if overflow not in ("slide", "error"):
            raise UsageProblem(
                f"overflow of a session is {overflow!r}; it is 'slide' or 'error'.", hint='overflow="slide"'
            )
        self._generator, self._adapter, self.sampling = generator, adapter, dict(sampling)
        self.wrap, self._overflow = wrap, overflow
        self.last: Completion | None = None
        self.clear()

    def clear(self) -> None:
        """A new text."""
        self.text = ""
        self.forgotten = 0  # words that are no longer seen
        self._ended = True  # the last answer ended by itself, it was not cut
        self._from = 0  # where the text begins that is read: the pair that is asked
        self._turns: list[_Turn] = []  # as things stood before each: for retry and undo
        self._memory: Memory = (None, None)
        self._of_others = sys.maxsize  # tokens of what is kept that other writers read, at most

    @property
    def adapter(self) -> str:
        return self._generator.writer(self._adapter).text

    @property
    def form(self) -> Template | Prompt | None:
        """How what is said is written for this adapter; that of the first in a blend that has one."""
        versions = self._generator.writer(self._adapter).versions if self.wrap else ()
        forms = (form_of(version.manifest.get("recipe", {})) for version, _ in versions)
        return next((form for form in forms if form), None)

    @property
    def passages(self) -> list[Passage]:
        """What was written, turn by turn."""
        return [turn.passage for turn in self._turns if turn.passage]

    def switch(self, adapter: Adapter, *, keep: bool = False) -> None:
        """Another writer from here on; an unknown one leaves things as they are.

        Args:
            keep: the new writer does not read the text so far itself, but goes on from
                what the writers before made of it. How many tokens that were is in each
                completion (``kept_prefix``): 0 where the text is short, its beginning
                slid out of sight, or much else was written since.

        Raises:
            Unsupported: ``keep`` between different bases, as a full fine-tune is.
        """
        before, after = self._generator.writer(self._adapter), self._generator.writer(adapter)
        if keep and before.engine is not after.engine:
            raise Unsupported(
                f"{after.text} can't go on from what {before.text} made of the text: a full fine-tune is another base.",
                hint="switch(adapter), which reads the text again",
            )
        goes_on = before.parts if self._memory[0] is None else self._memory[0]
        # a key of its own: what several writers made of a text is of no use to another one
        self._memory = (goes_on, object()) if keep else (None, None)
        self._of_others = sys.maxsize
        self._adapter = adapter

    def stream(self, said: str = "") -> Pieces:
        """Go on from the text and what was said; pieces as they come. Leaving them ends the writing.

        Nothing happens before the first piece is asked for.
        """
        form = self.form
        self._turns.append(_Turn(self.text, self._ended, self._from, said))
        try:
            self._say(said, form)
            told = {**self._settings(form), "memory": self._memory}
            stream = self._generator.stream(self._visible(form), self._adapter, **told)
        except BaseException:  # too long, too busy: nothing was said then
            self.undo()
            raise
        yield from self._answer(form, stream)

    def retry(self) -> str:
        """The last answer again, with another seed unless one was given."""
        return "".join(self.stream_retry())

    def stream_retry(self) -> Pieces:
        """The last answer again, in pieces as they come; nothing happens before the first is asked for."""
        turns, as_it_was = list(self._turns), (self.text, self._ended, self._from)
        said = self.undo() if turns else ""
        try:
            yield from self.stream(said)
        except BaseException:
            if len(self._turns) < len(turns):  # refused: the answer of before stays
                self._turns = turns
                self.text, self._ended, self._from = as_it_was
            raise

    def undo(self) -> str:
        """Take the last turn back, what was said and what was written; what was said is returned.

        Raises:
            UsageProblem: there is none.
        """
        if not self._turns:
            raise UsageProblem("there is nothing to take back.", hint="write something first")
        before = self._turns.pop()
        self.text, self._ended, self._from = before.text, before.ended, before.begins
        return before.said

    def save(self, path: Path | str) -> list[Path]:
        """The text, and beside it as JSON who wrote each passage, with which seed and settings.

        Returns:
            What was written: ``letter.txt`` and ``letter.json``; of a path that ends in
            ``.json`` that file alone, which has the text too.
        """
        path = Path(path).expanduser()
        beside = path.with_suffix(".json")
        passages = [asdict(passage) for passage in self.passages]
        told = {"schema": 1, "text": self.text, "passages": passages}
        contents = {path: self.text, beside: json.dumps(told, indent=2, ensure_ascii=False, default=str)}
        for each, content in contents.items():
            write_whole(each, content.encode())
        return list(contents)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def __call__(self, said: str = "") -> str:
        return "".join(self.stream(said))

    def _say(self, said: str, form: Template | Prompt | None) -> None:
        if isinstance(form, Prompt) and form.asked:
            if said:
                self.text = self.text.rstrip() + "\n\n" if self.text else ""
                self._from = len(self.text)
                self.text += form.ask(said.strip())
            return
        self._from = 0
        if not isinstance(form, Template):
            self.text += said
        elif said or self._ended:  # nothing said to an answer that was cut: it goes on as it is
            self.text = form.ask(said.strip(), self.text)

    def _answer(self, form: Template | Prompt | None, stream: Stream) -> Pieces:
        turn, settings, text = self._turns[-1], dict(self.sampling), ""
        self._ended = False
        # the blank between a tag and the words is learned with the words, but is not part of the answer
        blank = isinstance(form, Template) and self.text.endswith(form.opening(ASSISTANT))
        try:
            for piece in stream:
                self.text += piece
                shown = piece.lstrip(" ") if blank else piece
                blank = blank and not shown
                text += shown
                if shown:
                    yield shown
        except BaseException:  # an interrupt, or who reads left: it is written no further
            with suppress(Exception):
                stream.close()
            raise
        finally:
            if done := stream.completion:
                self.last, self._ended = self._remembered(done), done.finish_reason == "stop"
                turn.passage = Passage(
                    turn.said, text, done.adapter, done.digests, done.seed, settings,
                    done.finish_reason, done.forced_base,
                )  # fmt: skip

    def _remembered(self, done: Completion) -> Completion:
        """Have the next turn go on from this one; the completion tells only of tokens that others read.

        What was kept since a switch has tokens that the present writer read, too.
        """
        own = self._memory[1]
        if own is None:
            return done
        kept = min(self._of_others, done.kept_prefix)
        if done.usage.new_tokens:  # else it may have ended before it was read
            self._of_others = kept
            self._memory = (own, own) if kept else (None, None)
        return replace(done, kept_prefix=kept)

    def _settings(self, form: Template | Prompt | None) -> dict[str, Any]:
        if not isinstance(form, Template):
            return self.sampling
        stop = self.sampling.get("stop", ())
        return {**self.sampling, "stop": (*((stop,) if isinstance(stop, str) else stop), *form.stop)}

    def _visible(self, form: Template | Prompt | None) -> str:
        """The end of the text that leaves room to write, cut between turns or words."""
        writer = self._generator.writer(self._adapter)
        engine, text = writer.engine, self.text[self._from :]
        if self._overflow == "error":
            self._check_length(len(engine.encode(text, raw=False)), engine.model.context)
            return text
        wanted = int(self.sampling.get("max_new_tokens", writer.defaults.max_new_tokens))
        room = max(engine.model.context - wanted, engine.model.context // 2) - 1
        _, starts = engine.tokenizer.offsets(text)
        if len(starts) <= room:
            self.forgotten = 0
            return text
        cut = starts[len(starts) - room]
        space = text.find(" ", cut)
        turn = form.next_turn(text, cut) if isinstance(form, Template) else -1
        cut = turn if turn >= 0 else space + 1 if 0 <= space < cut + 80 else cut
        self.forgotten = len(text[:cut].split())
        return text[cut:]

    @staticmethod
    def _check_length(tokens: int, context: int) -> None:
        if tokens >= context:
            raise PromptTooLong(
                f"the text is {tokens:,} tokens; this base sees {context:,}, and something must be left to write.",
                hint='session(overflow="slide") lets its beginning go',
                details={"tokens": tokens, "context": context},
            )
