"""From tokens back to text as it comes: whole characters only, stop strings held back."""

from __future__ import annotations

from typing import Protocol

WINDOW = 32  # tokens that are decoded together before the older half of them is settled
LONGEST = 4  # bytes of a character in UTF-8


class Decoder(Protocol):
    def decode(self, ids: list[int]) -> str: ...


class TextStream:
    """The text of one request, token by token.

    ``push`` gives what can be shown for sure: not a half character (tokens are
    bytes), nor the beginning of what may become a stop string. A token costs
    the same however long the text is: only the last few are decoded again, as
    nothing that comes can change the characters before them.
    """

    def __init__(self, decoder: Decoder, stop: tuple[str, ...]) -> None:
        self._decoder, self._stop = decoder, stop
        self._longest = max(map(len, stop), default=0)
        self._settled = ""  # the text of all tokens but those of the window
        self._window: list[int] = []
        self._searched = 0  # characters in which there is no stop string
        self._shown = 0
        self.text = ""
        self.stopped_by = ""

    def push(self, token: int) -> str:
        self._window.append(token)
        recent = self._decoder.decode(self._window)
        whole = self._settled + recent
        self._settle(recent)
        if found := self._found(whole):
            self.text, self.stopped_by = whole[: found[0]], found[1]
            return self._show(len(self.text))
        self.text = whole
        safe = len(whole.rstrip("\ufffd")) if whole.endswith("\ufffd") else len(whole)
        self._searched = safe
        return self._show(min(safe, len(whole) - self._held_back(whole)))

    def finish(self) -> str:
        """What was held back, now that nothing more comes."""
        return self._show(len(self.text))

    def _settle(self, recent: str) -> None:
        """Let go of the older half of a full window, if no character lies across the cut.

        A character that did would be one there and two or three halves here; and
        the newer half has as many bytes as one can have, so nothing is open at the cut.
        """
        if len(self._window) < WINDOW:
            return
        half = len(self._window) // 2
        older, newer = self._decoder.decode(self._window[:half]), self._decoder.decode(self._window[half:])
        if len(newer) >= LONGEST and older + newer == recent:
            self._settled += older
            del self._window[:half]

    def _found(self, whole: str) -> tuple[int, str] | None:
        """Where the earliest stop string begins, and which; one that was there before would have ended the text."""
        start = max(0, self._searched - self._longest)
        places = ((whole.find(s, start), s) for s in self._stop)
        return min(((at, s) for at, s in places if at >= 0), default=None)

    def _show(self, upto: int) -> str:
        piece = self.text[self._shown : upto]
        self._shown = max(self._shown, upto)
        return piece

    def _held_back(self, text: str) -> int:
        """Length of the longest end of the text that begins a stop string."""
        for n in range(min(self._longest - 1, len(text)), 0, -1):
            if any(s.startswith(text[-n:]) for s in self._stop):
                return n
        return 0
