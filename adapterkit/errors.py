"""Every deliberate error, each with what happened and the next step.

::

    AdapterKitError
    |-- UsageProblem      the words of a command do not fit together    exit 2
    |-- NotFound          no such adapter, version, file, recipe        exit 1
    |-- NameTaken         the name means something else already         exit 1
    |-- RecipeError       a key, a value, a combination                 exit 1
    |-- DataError         the text can't be learned from                exit 1
    |-- BaseMismatch      an adapter of another base                    exit 1
    |-- Unsupported       understood, but not done here                 exit 1
    |-- OutOfMemory       the device is too small                       exit 1
    |-- PromptTooLong     more than the base can see                    exit 1
    |-- Forked            a generator carried into another process      exit 1
    |-- Damaged           not the bytes that were published             exit 3
    |-- CheckFailed       a check said no                               exit 3
    |-- Unreachable       the network did not answer                    exit 4
    |-- OutOfSpace        the disk is full                              exit 4
    |-- Overloaded        busy, try again                               exit 4
    `-- Interrupted       stopped by the person, to be gone on with     exit 130

Anything else that escapes is our bug (exit 70, with a traceback).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar


class AdapterKitError(Exception):
    """Something the user can act on.

    Args:
        message: what happened, with the value.
        hint: the next step, best a command that can be pasted.
        code: a finer word than the class's own, stable for programs.
        details: plain values for programs.
    """

    default_code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(
        self, message: str, hint: str = "", *, code: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, hint)  # both in args: survives pickling between workers
        self.message, self.hint = message, hint
        self.code = code or self.default_code
        self.details = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.code, self.details)

    def __str__(self) -> str:
        return f"{self.message}\nhint:  {self.hint}" if self.hint else self.message


def _rebuild(
    kind: type[AdapterKitError], message: str, hint: str, code: str, details: Any
) -> AdapterKitError:
    return kind(message, hint, code=code, details=details)


class UsageProblem(AdapterKitError):
    default_code, exit_code = "usage", 2


class NotFound(AdapterKitError):
    default_code = "not-found"


class NameTaken(AdapterKitError):
    default_code = "name-taken"


class RecipeError(AdapterKitError):
    default_code = "recipe"


class DataError(AdapterKitError):
    default_code = "data"


class BaseMismatch(AdapterKitError):
    default_code = "base-mismatch"


class Unsupported(AdapterKitError):
    default_code = "unsupported"


class OutOfMemory(AdapterKitError):
    default_code = "out-of-memory"


class PromptTooLong(AdapterKitError):
    default_code = "prompt-too-long"


class Forked(AdapterKitError):
    default_code = "forked"


class Damaged(AdapterKitError):
    default_code, exit_code = "damaged", 3


class CheckFailed(AdapterKitError):
    default_code, exit_code = "check-failed", 3


class Unreachable(AdapterKitError):
    default_code, exit_code = "unreachable", 4


class OutOfSpace(AdapterKitError):
    default_code, exit_code = "out-of-space", 4


class Overloaded(AdapterKitError):
    default_code, exit_code = "overloaded", 4


class Interrupted(AdapterKitError):
    """Stopped by the person; exits as a shell expects of Ctrl-C."""

    default_code, exit_code = "interrupted", 130


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word a person most likely meant, or None."""
    close = get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return close[0] if close else None
