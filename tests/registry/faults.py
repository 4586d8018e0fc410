"""Calls that change a disk, counted in a forked child; at the n-th it is killed or gets an error.

Python's own: ``os`` functions that change something, and files opened for
writing, whose raw writes are counted one by one. fsync is only counted, as a
process that is killed leaves the system's memory alone.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Never

MUTATING = (
    "write", "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "chmod", "fchmod", "fsync", "fdatasync",
    "utime", "link", "symlink", "truncate", "ftruncate",
)  # fmt: skip
ROOM = (
    "open",
    "write",
    "mkdir",
    "fsync",
    "rename",
    "replace",
    "link",
    "symlink",
    "ftruncate",
)  # that takes some
KILL, TORN = "kill", "torn"  # torn: half of a write, then the kill
DONE, KILLED = "done", "killed"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Call:
    """One of the calls of an operation: its name, and the how-manieth it is (in ``traced`` among those of its name)."""

    name: str
    at: int

    def is_answered(self, answer: str) -> bool:
        """Whether the answer differs here from a kill, and can be given at all."""
        if answer == TORN:
            return self.name == "write"
        return not answer.startswith("ENOSPC") or self.name.startswith(ROOM)


@dataclass
class Fault:
    """What happens before the n-th call.

    Attributes:
        at: 1 is the first; 0 never.
        answer: kill, torn, or the name of an error as in errno.
        stays: the error is given from then on to every call that takes room, as by a full disk.
    """

    at: int
    answer: str
    stays: bool = False
    seen: list[str] = field(default_factory=list)
    is_over: bool = False

    def step(self, call: str, half: Callable[[], object] | None = None) -> None:
        if self.is_over:
            return
        self.seen.append(call)
        later = self.stays and 0 < self.at < len(self.seen) and call in ROOM
        if len(self.seen) != self.at and not later:
            return
        if self.answer == TORN and half:
            half()
        if self.answer in (KILL, TORN):
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, self.answer)
        raise OSError(number, os.strerror(number))


def calls(act: Callable[[], str]) -> list[Call]:
    """Those of an operation that nothing happens to.

    Args:
        act: does it, and says how it ended.
    """
    told, seen = _in_child(act, Fault(0, ""))
    assert told == DONE, told
    return [Call(name, at) for at, name in enumerate(seen, start=1)]


def attempt(act: Callable[[], str], call: Call, answer: str) -> str:
    """How an operation ends when a call gets the answer; with ``+`` every later one too."""
    return _in_child(act, Fault(call.at, answer.rstrip("+"), answer.endswith("+")))[0]


def _in_child(act: Callable[[], str], fault: Fault) -> tuple[str, list[str]]:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(act, fault, write)
    os.close(write)
    with open(read, "rb") as pipe:
        raw = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGKILL:
        return KILLED, []
    assert status == 0, status
    told, seen = json.loads(raw)
    return told, seen


def _be_child(act: Callable[[], str], fault: Fault, write: int) -> Never:
    try:
        install(fault)
        told = act()
        fault.is_over = True
        os.write(write, json.dumps([told, fault.seen]).encode())
    finally:
        os._exit(0)


def install(fault: Fault) -> None:
    """Let every later call of this process go through the fault; nothing is put back."""
    for name in MUTATING:
        _replace(name, _counted(name, getattr(os, name), fault))
    _replace("open", _opening(os.open, fault))
    builtins.open = io.open = _file_opening(io.open, fault)


def _replace(name: str, new: Callable[..., Any]) -> None:
    old = getattr(os, name)
    for known in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if old in known:
            known.add(new)
    setattr(os, name, new)


def _counted(name: str, real: Callable[..., Any], fault: Fault) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        half = (lambda: real(args[0], args[1][: len(args[1]) // 2])) if name == "write" else None
        fault.step(name, half)
        return None if name in ("fsync", "fdatasync") else real(*args, **kwargs)

    return call


def _opening(real: Callable[..., int], fault: Fault) -> Callable[..., int]:
    def call(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & WRITING:
            fault.step("open")
        return real(path, flags, *args, **kwargs)

    return call


def _file_opening(real: Callable[..., Any], fault: Fault) -> Callable[..., Any]:
    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            fault.step("write", lambda: io.FileIO.write(self, data[: len(data) // 2]))
            return super().write(data)

    def call(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
        if not set(mode) & set("wax+"):
            return real(file, mode, buffering, *args, **kwargs)
        fault.step("open")
        buffered = io.BufferedWriter(Raw(file, mode.replace("b", "").replace("t", "")))
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **kwargs)

    return call
