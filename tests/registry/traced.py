"""System calls that change a disk, of a forked child that strace holds; at the n-th it is killed or gets an error.

The same two doors as ``faults``. strace takes hold of the child after the fork,
so that nothing of the interpreter's own start is counted.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Never

from tests.registry.faults import DONE, KILL, KILLED, Call

CALLS = (
    "write", "pwrite64", "writev", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
    "openat", "open", "creat", "fsync", "fdatasync", "chmod", "fchmod", "fchmodat", "fchmodat2", "ftruncate", "truncate",
    "link", "linkat", "symlink", "symlinkat", "utimensat",
)  # fmt: skip
TRACED = "trace=" + ",".join(f"?{c}" for c in CALLS)  # ?: not every machine has each
OPENS = ("openat", "open")
ANY_TRACER = 0x59616D61, ctypes.c_ulong(-1)  # prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY)


def missing() -> str:
    """Why it can't be done here; empty when it can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    try:
        _held(lambda: DONE, ["-e", "trace=fsync"])
    except AssertionError as e:
        return f"strace may not hold a process here ({e})"
    return ""


def calls(act: Callable[[], str]) -> list[Call]:
    """Those of an operation that nothing happens to, each with its place among those of its name."""
    with tempfile.NamedTemporaryFile("r") as log:
        told = _held(act, ["-e", TRACED, "-o", log.name])
        lines = log.read().splitlines()
    assert told == DONE, told
    counts: Counter[str] = Counter()
    found = []
    for line in lines:
        if match := re.match(r"(?:\d+ +)?(\w+)\(", line):
            counts[match[1]] += 1
            if match[1] not in OPENS or re.search(r"O_(CREAT|WRONLY|RDWR|TRUNC)", line):
                found.append(Call(match[1], counts[match[1]]))
    return found[:-1]  # the last one is what the child says at its end


def attempt(act: Callable[[], str], call: Call, answer: str) -> str:
    """How an operation ends when a call gets the answer."""
    what = "signal=KILL" if answer == KILL else f"error={answer}"
    inject = f"inject={call.name}:{what}:when={call.at}"
    return _held(act, ["-e", f"trace={call.name}", "-e", inject, "-o", os.devnull])


def _held(act: Callable[[], str], options: Sequence[str]) -> str:
    """What a child says that strace holds."""
    gate, told = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(act, gate[0], told[1])
    os.close(told[1])
    command = ["strace", "-f", *options, "-p", str(child)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    if "attached" not in said:
        os.kill(child, signal.SIGKILL)
    os.write(gate[1], b"go")
    with open(told[0], "rb") as pipe:
        raw = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    tracer.communicate()
    for fd in gate:
        os.close(fd)
    assert "attached" in said, said
    return KILLED if status == -signal.SIGKILL else raw.decode()


def _be_child(act: Callable[[], str], gate: int, told: int) -> Never:
    try:
        ctypes.CDLL(None).prctl(*ANY_TRACER, 0, 0, 0)
        os.read(gate, 2)
        os.write(told, act().encode())
    finally:
        os._exit(0)


def whole(
    command: Sequence[str], answers: Mapping[str, Sequence[str]], log: Path
) -> subprocess.CompletedProcess[str]:
    """A command under strace, with an error for every call of some names: error -> names.

    Args:
        log: for what strace saw of these calls.
    """
    traced = ["strace", "-f", "--seccomp-bpf", "-o", str(log)]
    traced += ["-e", "trace=" + ",".join(f"?{n}" for names in answers.values() for n in names)]
    for error, names in answers.items():
        traced += ["-e", f"inject={','.join(n for n in names if _is_known(n))}:error={error}"]
    return subprocess.run([*traced, *command], capture_output=True, text=True)


@cache
def _is_known(name: str) -> bool:
    """Whether strace knows a call on this machine; there are more on some than on others."""
    command = ["strace", "-o", os.devnull, "-e", f"trace={name}", "true"]
    return subprocess.run(command, capture_output=True).returncode == 0
