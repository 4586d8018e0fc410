"""A text that grows: what one says, what it writes, and who writes next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from adapterkit.data.template import ASSISTANT, Prompt, Template, form_of
from adapterkit.errors import UsageProblem
from adapterkit.generation.generator import Adapter, Generator
from adapterkit.generation.results import Completion


@dataclass(frozen=True)
class _Turn:
    """How things stood before something was said, and what that was."""

    text: str
    ended: bool
    begins: int
    said: str


class Session:
    """A running text with one generator.

    The text so far is read again at every turn, so a switch of the adapter in
    the middle gives what the new one makes of the whole. When it grows past
    what the base sees, its beginning slides out of sight (``forgotten`` words).

    An adapter that learned from a chat is spoken to as it was there, ``User:
    ...``; of one that learned from pairs each turn is asked by itself, as each
    pair was a document of its own. Others go on with the text as it is.

    Args:
        generator: what writes.
        adapter: None or "base", a ref, a blend.
        wrap: False leaves what is said as it is, whatever the adapter learned from.
        sampling: as for the generator.
    """

    def __init__(
        self, generator: Generator, adapter: Adapter = None, *, wrap: bool = True, **sampling: Any
    ) -> None:
        self._generator, self._adapter, self.sampling = generator, adapter, dict(sampling)
        self.wrap = wrap
        self.last: Completion | None = None
        self.clear()

    def clear(self) -> None:
        """A new text."""
        self.text = ""
        self.forgotten = 0  # words that are no longer seen
        self._ended = True  # the last answer ended by itself, it was not cut
        self._from = 0  # where the text begins that is read: the pair that is asked
        self._turns: list[_Turn] = []  # as things stood before each: for retry and undo

    @property
    def adapter(self) -> str:
        return self._generator.writer(self._adapter).text

    @property
    def form(self) -> Template | Prompt | None:
        """How what is said is written for this adapter; that of the first in a blend that has one."""
        versions = self._generator.writer(self._adapter).versions if self.wrap else ()
        forms = (form_of(version.manifest.get("recipe", {})) for version, _ in versions)
        return next((form for form in forms if form), None)

    def switch(self, adapter: Adapter) -> None:
        """Another writer from here on; an unknown one leaves things as they are."""
        self._generator.writer(adapter)
        self._adapter = adapter

    def stream(self, said: str = "", on_stream: Callable[[Any], None] | None = None) -> Iterator[str]:
        """Go on from the text and what was said; pieces as they come."""
        form = self.form
        self._turns.append(_Turn(self.text, self._ended, self._from, said))
        self._say(said, form)
        yield from self._answer(form, on_stream)

    def retry(self, on_stream: Callable[[Any], None] | None = None) -> Iterator[str]:
        """The last answer again, with another seed."""
        said = self.undo() if self._turns else ""
        yield from self.stream(said, on_stream)

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

    def _answer(
        self, form: Template | Prompt | None, on_stream: Callable[[Any], None] | None
    ) -> Iterator[str]:
        stream = self._generator.stream(self._visible(form), self._adapter, **self._settings(form))
        if on_stream:
            on_stream(stream)
        self._ended = False
        # the blank between a tag and the words is learned with the words, but is not part of the answer
        blank = isinstance(form, Template) and self.text.endswith(form.opening(ASSISTANT))
        for piece in stream:
            self.text += piece
            shown = piece.lstrip(" ") if blank else piece
            blank = blank and not shown
            if shown:
                yield shown
        self.last = stream.completion
        self._ended = self.last is not None and self.last.finish_reason == "stop"

    def _settings(self, form: Template | Prompt | None) -> dict[str, Any]:
        if not isinstance(form, Template):
            return self.sampling
        stop = self.sampling.get("stop", ())
        return {**self.sampling, "stop": (*((stop,) if isinstance(stop, str) else stop), *form.stop)}

    def _visible(self, form: Template | Prompt | None) -> str:
        """The end of the text that leaves room to write, cut between turns or words."""
        writer = self._generator.writer(self._adapter)
        engine, text = writer.engine, self.text[self._from :]
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
