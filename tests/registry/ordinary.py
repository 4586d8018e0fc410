"""What an ordinary user meets: ``python -m tests.registry.ordinary WHAT USER`` prints it as JSON.

Everything is imported before the process becomes that user, who may not be
allowed to read where the interpreter lies.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterkit.sharing.incoming
import adapterkit.sharing.packed  # noqa: F401  opened by name, and then it would be too late
from adapterkit.errors import AdapterKitError
from adapterkit.registry.store import Registry
from tests.registry.operations import OPERATIONS, everything, picture, prepare, put


def run(what: str, user: int) -> Any:
    """What a process of that user's came to."""
    command = [sys.executable, "-m", "tests.registry.ordinary", what, str(user)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def main(what: str, user: str) -> None:
    logging.getLogger("adapterkit").addHandler(logging.NullHandler())
    made = Path(tempfile.mkdtemp())
    try:
        print(json.dumps(DOINGS[what](made, int(user))))  # noqa: T201
    finally:
        os.seteuid(0)
        shutil.rmtree(made)


def become(user: int, folder: Path, *, owner: bool) -> None:
    """Be that user from now on, in a folder that is theirs or that they may only look at."""
    os.environ.update(ADAPTERKIT_CACHE=f"{folder}/cache", HOME=str(folder))
    folder.chmod(0o755)
    if owner:
        os.chown(folder, user, user)
    os.setgroups([])
    os.setegid(user)
    os.seteuid(user)


def read_only(folder: Path, user: int) -> Any:
    """How each operation ends in a registry of root's, and what is seen of it."""
    prepare(folder)
    before = picture(folder / "adapters")
    become(user, folder, owner=False)
    ends = {}
    for name, operation in OPERATIONS.items():
        if operation.is_first:
            continue
        try:
            operation.act(Registry(folder / "adapters"))
            ends[name] = "done"
        except AdapterKitError as e:
            ends[name] = e.code
        except Exception as e:
            ends[name] = repr(e)
    is_same = picture(folder / "adapters") == before
    return {"ends": ends, "is_same": is_same, "problems": len(Registry(folder / "adapters").verify())}


def removing(folder: Path, user: int) -> Any:
    """``rm -rf`` of a name by its owner, and publishing under it again."""
    become(user, folder, owner=True)
    registry = Registry(folder / "adapters")
    for seed in (1, 2):
        put(registry, "noir", seed)
    registry.alias("noir@1", "prod")
    registry.delete("noir@2")
    registry.gc(now=True)
    done = subprocess.run(
        ["rm", "-rf", str(registry.path / "noir")], capture_output=True, text=True, user=user, group=user
    )
    left = os.listdir(registry.path)
    return {"rm": [done.returncode, done.stderr], "left": left, "again": put(registry, "noir", 3).ref}


def without(folder: Path, user: int) -> Any:
    """Every operation where neither fsync nor chmod is known."""
    become(user, folder, owner=True)
    os.fsync = os.chmod = _refuse
    return everything(Registry(folder / "adapters"), folder / "away")


def _refuse(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


DOINGS: dict[str, Callable[[Path, int], Any]] = {
    "read-only": read_only,
    "removing": removing,
    "without": without,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
