"""From tokens back to text as it comes: whole characters only, stop strings held back."""

from __future__ import annotations

from typing import Protocol


class Decoder(Protocol):
    def decode(self, ids: list[int]) -> str: ...


class TextStream:
    """The text of one request, token by token.

    ``push`` gives what can be shown for sure: not a half character (tokens are
    bytes), nor the beginning of what may become a stop string.
    """

    def __init__(self, decoder: Decoder, stop: tuple[str, ...]) -> None:
        self._decoder, self._stop = decoder, stop
        self._ids: list[int] = []
        self._shown = 0
        self.text = ""
        self.stopped_by = ""

    def push(self, token: int) -> str:
        self._ids.append(token)
        whole = self._decoder.decode(self._ids)
        found = min(((whole.find(s), s) for s in self._stop if s in whole), default=None)
        if found is not None:
            self.text, self.stopped_by = whole[: found[0]], found[1]
            return self._show(len(self.text))
        self.text = whole
        safe = len(whole.rstrip("\ufffd")) if whole.endswith("\ufffd") else len(whole)
        return self._show(min(safe, len(whole) - self._held_back(whole)))

    def finish(self) -> str:
        """What was held back, now that nothing more comes."""
        return self._show(len(self.text))

    def _show(self, upto: int) -> str:
        piece = self.text[self._shown : upto]
        self._shown = max(self._shown, upto)
        return piece

    def _held_back(self, text: str) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = max(map(len, self._stop), default=0)
        for n in range(min(longest - 1, len(text)), 0, -1):
            if any(s.startswith(text[-n:]) for s in self._stop):
                return n
        return 0
