"""What a call gives back: texts that say who wrote them, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from adapterkit.generation.logprobs import TokenLogprob
from adapterkit.generation.requests import Finish
from adapterkit.generation.sampling import Sampling


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int  # that were read
    new_tokens: int
    kept_tokens: int = 0  # of those, that had been read for an earlier text
    cut_tokens: int = 0  # of the prompt's beginning, that the base could not see (overflow="left")
    first_token_seconds: float = 0.0  # from the request to its first token


@dataclass(frozen=True)
class Completion:
    """One written text. ``str(c)`` is the new text only.

    Attributes:
        finish_reason: "stop" (by itself, or at a stop string), "length", "timeout"
            (what was written until then), "cancelled", "error" (its numbers overflowed).
        logprobs: with ``logprobs=k``, of each of the ``usage.new_tokens`` tokens that were
            drawn, the end token and those of a stop string too, how likely the model
            found it: natural logarithms of the softmax of its logits in float32, before
            temperature, penalties and cuts. With ``echo`` the ``usage.prompt_tokens``
            tokens of the prompt come first.
    """

    text: str
    prompt: str
    adapter: str  # resolved: "noir@3=0.7,shanty@1=0.3", or "base"
    digests: tuple[str, ...]
    finish_reason: Finish
    stopped_by: str  # "end-of-text", the stop string, or ""
    seed: int
    sampling: Sampling
    usage: Usage
    seconds: float
    forced_base: bool = False  # an adapter was made on another base than the one that wrote (force_base)
    kept_prefix: int = 0  # tokens of the prompt as other adapters read them (Session.switch with keep=True)
    logprobs: tuple[TokenLogprob, ...] | None = None

    @property
    def full_text(self) -> str:
        return self.prompt + self.text

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Comparison:
    """One prompt written on by several adapters with one seed and one setting."""

    prompt: str
    completions: tuple[Completion, ...]

    def __iter__(self) -> Iterator[Completion]:
        return iter(self.completions)

    def __str__(self) -> str:
        width = max((len(c.adapter) for c in self.completions), default=0)
        return "\n".join(f"{c.adapter:<{width}}  {c.prompt}{c.text}" for c in self.completions)


class Stream:
    """Iterates over pieces of text as they come; ``completion`` is there when it is done.

    ``with`` closes it at the end of the block. One that nobody holds any more is written no further.
    """

    def __init__(
        self, pieces: Iterable[str], finish: Callable[[], Completion], cancel: Callable[[], None]
    ) -> None:
        self._pieces, self._finish, self._cancel = pieces, finish, cancel
        self.completion: Completion | None = None

    def __iter__(self) -> Iterator[str]:
        yield from self._pieces
        self.completion = self._finish()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except Exception:
            if error is None:  # else it is the error of the block that is told
                raise

    def __del__(self) -> None:
        if self.completion is None:
            self._cancel()  # which takes no lock: whatever thread frees this may hold it

    def close(self) -> None:
        """Stop writing; what was written so far is the completion."""
        if self.completion is not None:
            return
        self._cancel()
        for _ in self._pieces:
            pass
        self.completion = self._finish()
