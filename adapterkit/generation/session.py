"""A text that grows: what one says, what it writes, and who writes next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from adapterkit.generation.generator import Adapter, Generator
from adapterkit.generation.results import Completion


class Session:
    """A running text with one generator.

    The text so far is read again at every turn, so a switch of the adapter in
    the middle gives what the new one makes of the whole. When it grows past
    what the base sees, its beginning slides out of sight (``forgotten`` words).
    """

    def __init__(self, generator: Generator, adapter: Adapter = None, **sampling: Any) -> None:
        self._generator, self._adapter, self.sampling = generator, adapter, dict(sampling)
        self.text = ""
        self.forgotten = 0  # words that are no longer seen
        self._before = ""  # text before the last answer, for retry
        self.last: Completion | None = None

    @property
    def adapter(self) -> str:
        return self._generator.writer(self._adapter).text

    def switch(self, adapter: Adapter) -> None:
        """Another writer from here on; an unknown one leaves things as they are."""
        self._generator.writer(adapter)
        self._adapter = adapter

    def stream(self, said: str = "", on_stream: Callable[[Any], None] | None = None) -> Iterator[str]:
        """Go on from the text and what was said; pieces as they come."""
        self.text += said
        self._before = self.text
        yield from self._answer(on_stream)

    def retry(self, on_stream: Callable[[Any], None] | None = None) -> Iterator[str]:
        """The last answer again, with another seed."""
        self.text = self._before
        yield from self._answer(on_stream)

    def __call__(self, said: str = "") -> str:
        return "".join(self.stream(said))

    def _answer(self, on_stream: Callable[[Any], None] | None) -> Iterator[str]:
        prompt = self._visible()
        stream = self._generator.stream(prompt, self._adapter, **self.sampling)
        if on_stream:
            on_stream(stream)
        for piece in stream:
            self.text += piece
            yield piece
        self.last = stream.completion

    def _visible(self) -> str:
        """The end of the text that leaves room to write, cut between words."""
        engine = self._generator.writer(self._adapter).engine
        wanted = int(self.sampling.get("max_new_tokens", 200))
        room = max(engine.model.context - wanted, engine.model.context // 2) - 1
        _, starts = engine.tokenizer.offsets(self.text)
        if len(starts) <= room:
            self.forgotten = 0
            return self.text
        cut = starts[len(starts) - room]
        space = self.text.find(" ", cut)
        cut = space + 1 if 0 <= space < cut + 80 else cut
        self.forgotten = len(self.text[:cut].split())
        return self.text[cut:]
