"""Many processes at one registry: writers that are killed and begun anew, a deleter, a gc that never rests.

``python -m tests.registry.writers WRITERS VERSIONS KILLS [RENAMERS]`` prints what
it came to as a JSON line; ``aliases WRITERS EACH`` only sets aliases of one name. flock does nothing in any of its processes. Each
process writes down what it was told, and each claim is compared with what is
there in the end.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from adapterkit.errors import NameTaken, NotFound, Unsupported
from adapterkit.registry import place, slots
from adapterkit.registry.store import Registry
from tests.registry.operations import put

NAMES = ("noir", "shanty", "tales")
SHARED = 40  # contents that several writers publish


def run(*arguments: str | int) -> dict[str, Any]:
    """What a process of its own came to."""
    command = [sys.executable, "-m", "tests.registry.writers", *map(str, arguments)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(*arguments: str) -> None:
    logging.getLogger("adapterkit").addHandler(logging.NullHandler())
    fcntl.flock = lambda *_: None
    with tempfile.TemporaryDirectory() as made:
        os.environ["ADAPTERKIT_CACHE"] = f"{made}/cache"
        place.create(Path(made) / "adapters")
        if arguments[0] == "aliases":
            found = set_aliases(Path(made) / "adapters", *map(int, arguments[1:]))
        else:
            writers, versions, kills, *renamers = map(int, arguments)
            crowd = Crowd(Path(made), versions)
            crowd.play(writers, kills, sum(renamers))
            found = judge(crowd)
        print(json.dumps(found))  # noqa: T201


def set_aliases(root: Path, writers: int, each: int) -> dict[str, Any]:
    """How many aliases of one name are there after all writers have set theirs at once."""
    put(Registry(root), "noir", 1)
    children = []
    for writer in range(writers):
        if (child := os.fork()) == 0:
            registry = Registry(root)
            for n in range(each):
                registry.alias("noir@1", f"w{writer}-{n}")
            os._exit(0)
        children.append(child)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return {"ends": ends, "kept": len(Registry(root).aliases("noir"))}


class Crowd:
    """The processes, and the folder where they write down what they were told.

    Attributes:
        kills: how many writers were killed.
    """

    def __init__(self, folder: Path, versions: int) -> None:
        self.root, self.told, self.versions = folder / "adapters", folder / "told", versions
        self.told.mkdir()
        self.kills = 0

    def count(self) -> int:
        return sum(len(slots.slots(self.root / name)) for name in Registry(self.root).names())

    def play(self, writers: int, kills: int, renamers: int) -> None:
        """Until there are enough versions; the kills are spread over the time it takes."""
        draw = random.Random(0)
        running = [self._begin(Actor.write, i) for i in range(writers)]
        others = [self._begin(Actor.delete, 1000), self._begin(Actor.collect, 1001)]
        others += [self._begin(Actor.rename, 1002 + i) for i in range(renamers)]
        while (there := self.count()) < self.versions or self.kills < kills:
            if self.kills < kills and there > self.versions * (self.kills + draw.random()) / (kills + 1):
                victim = draw.randrange(writers)
                os.kill(running[victim], signal.SIGKILL)
                os.waitpid(running[victim], 0)
                self.kills += 1
                running[victim] = self._begin(Actor.write, writers + self.kills)
            time.sleep(draw.random() * 0.01)
        (self.told / "stop").touch()
        for pid in (*running, *others):
            os.waitpid(pid, 0)

    def _begin(self, work: Callable[[Actor], None], number: int) -> int:
        parent = os.getpid()
        child = os.fork()
        if child:
            return child
        try:
            actor = Actor(number, Registry(self.root), self.told / f"{number}")
            while os.getppid() == parent and not (self.told / "stop").exists():
                try:
                    work(actor)
                except Exception:
                    actor.tell("escaped", traceback.format_exc()[-1500:])
        finally:
            os._exit(0)


class Actor:
    """One process, and where it writes down what it was told."""

    def __init__(self, number: int, registry: Registry, told: Path) -> None:
        self.number, self.registry, self.draw, self.made = number, registry, random.Random(number), 0
        self._log = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def tell(self, what: str, *more: Any) -> None:
        os.write(self._log, json.dumps([what, *more]).encode() + b"\n")

    def write(self) -> None:
        self.made += 1
        own = self.number * 100_000 + self.made
        seed = self.draw.randrange(SHARED) if self.draw.random() < 0.2 else own
        with suppress(NotFound):  # the deleter was faster
            v = put(self.registry, self.draw.choice(NAMES), seed)
            self.tell("published", v.ref, v.digest)
            if self.draw.random() < 0.2:
                self.registry.alias(v.ref, f"w{self.number}")
                self.tell("aliased", f"{v.name}@w{self.number}")

    def delete(self) -> None:
        time.sleep(self.draw.random() * 0.05)
        name = self.draw.choice(NAMES)
        if there := slots.slots(self.registry.path / name):
            ref = f"{name}@{self.draw.choice(there).number}"
            self.tell("deleting", ref)
            with suppress(NotFound, Unsupported):  # deleted before, collected, or an alias means it
                self.registry.delete(ref)
                if self.draw.random() < 0.3:
                    self.tell("restoring", ref)
                    self.registry.restore(ref)

    def rename(self) -> None:
        time.sleep(self.draw.random() * 0.1)
        self.made += 1
        if names := self.registry.names():
            new = self.draw.choice((f"r{self.number}-{self.made}", *NAMES, *names))
            with suppress(NotFound, NameTaken):
                self.registry.rename(self.draw.choice(names), new)
                self.tell("renamed", new)

    def collect(self) -> None:
        self.registry.gc(now=True)
        time.sleep(0.01)


def judge(crowd: Crowd) -> dict[str, Any]:
    """What was done, and each thing that must never be; ``escaped`` are errors that are none of ours."""
    registry = Registry(crowd.root)
    registry.gc(now=True)
    said: dict[str, list[Any]] = defaultdict(list)
    for path in crowd.told.iterdir():
        for what, *more in map(json.loads, path.read_text().splitlines()):
            said[what].append(more[0] if len(more) == 1 else tuple(more))
    every = {v.ref: v for v in registry.versions(deleted=True)}
    digests = {v.digest for v in every.values()}
    meant = defaultdict(set)
    for ref, digest in said["published"]:
        meant[ref].add(digest)
    alive = [v for v in every.values() if not v.deleted and v.ref not in said["restoring"]]
    contents = Counter((v.name, v.facts.content) for v in alive)
    aliases = {f"{n}@{a}" for n in registry.names() for a in registry.aliases(n)}
    return {
        "versions": len(every),
        "kills": crowd.kills,
        "published": sum(len(known) for known in meant.values()),
        "renamed": len(said["renamed"]),
        "collected": sum(v.is_collected for v in every.values()),
        "gone": [ref for ref, digest in said["published"] if digest not in digests],
        "elsewhere": [
            ref for ref, (digest, *_) in meant.items() if ref not in every or every[ref].digest != digest
        ],
        "doubled": [ref for ref, known in meant.items() if len(known) > 1],
        "twins": [f"{name} {content}" for (name, content), n in contents.items() if n > 1],
        "hidden while live": [v.ref for v in every.values() if v.deleted and v.ref not in said["deleting"]],
        "damaged": [str(e) for e in registry.problems()]
        + [p.what for p in registry.verify() if p.code != "lost-alias"],
        "aliases lost": [alias for alias in said["aliased"] if alias not in aliases],
        "left": sorted(os.listdir(crowd.root / ".staging")),
        "escaped": said["escaped"],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
