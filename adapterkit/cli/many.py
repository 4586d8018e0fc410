"""``generate --prompts FILE --out FILE.jsonl``: a text for each prompt of a file, several at a time, in their order."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from adapterkit import files
from adapterkit.errors import AdapterKitError, DataError, NotFound, UsageProblem
from adapterkit.refs import from_mapping, parse_adapter
from adapterkit.registry.store import Registry

if TYPE_CHECKING:
    from concurrent.futures import Future

    from adapterkit.generation.generator import Generator
    from adapterkit.generation.results import Completion

AHEAD = 64  # prompts that are on their way: enough to keep every row busy, few enough to be held


@dataclass(frozen=True)
class Job:
    """A prompt of a file, with what its line asks for beside it."""

    where: str  # "prompts.jsonl line 3"
    prompt: str
    adapter: Any  # as in JSON; None is the one that was named
    settings: Mapping[str, Any]


def read(path: Path) -> list[Job]:
    """Jobs from a file: a prompt a line, or JSON lines with ``prompt`` and, if wanted, ``adapter`` and settings.

    Raises:
        NotFound: no such file.
        DataError: a line that is no job, by its number.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path}.", hint="--prompts FILE, a prompt a line")
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return [Job(f"{path} line {n}", line, None, {}) for n, line in enumerate(lines, 1) if line.strip()]
    return [_job(f"{path} line {n}", line) for n, line in enumerate(lines, 1) if line.strip()]


def check(jobs: list[Job], store: Registry, told: Mapping[str, Any]) -> None:
    """Whether every job can be asked for, before the first one is.

    Args:
        told: what all are asked with, where they don't say otherwise.

    Raises:
        DataError: an adapter that there is not, or a setting; with its line.
        UsageProblem: a setting of all.
    """
    from adapterkit.generation.asking import asked  # torch loads here
    from adapterkit.generation.sampling import Sampling

    Sampling().with_(**asked(told).changes)
    for job in jobs:
        try:
            if job.adapter is not None:
                _check_adapter(job.adapter, store)
            if job.settings:
                Sampling().with_(**asked({**told, **job.settings}).changes)
        except AdapterKitError as e:
            raise DataError(f"{job.where}: {e.message}", hint=e.hint, details=e.details) from e


def write(generator: Generator, adapter: str, jobs: list[Job], told: Mapping[str, Any], out: Path) -> int:
    """A JSON line a job, as each is done, in the jobs' order; the file appears when all are.

    Returns:
        How many were written.
    """
    if out.exists():
        raise UsageProblem(f"{out} is there already.", hint=f"rm {out}, or another --out")
    aside = out.with_name(f".{out.name}.part")
    with files.writing(out), aside.open("w", encoding="utf-8") as file:
        bar = click.progressbar(
            length=len(jobs), label="texts", file=sys.stderr, hidden=not sys.stderr.isatty()
        )
        with bar:
            for completion in _written(generator, adapter, jobs, told):
                _line(file, completion)
                bar.update(1)
    aside.replace(out)
    return len(jobs)


def _written(
    generator: Generator, adapter: str, jobs: list[Job], told: Mapping[str, Any]
) -> Iterator[Completion]:
    waiting: deque[Future[Completion]] = deque()
    try:
        for job in jobs:
            chosen = adapter if job.adapter is None else job.adapter
            waiting.append(generator.submit(job.prompt, chosen, **{**told, **job.settings}))
            if len(waiting) >= AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _line(file: TextIO, completion: Completion) -> None:
    told = asdict(completion) | {"full_text": completion.full_text}
    file.write(json.dumps(told, ensure_ascii=False, default=str) + "\n")


def _check_adapter(adapter: Any, store: Registry) -> None:
    if not isinstance(adapter, str | dict):
        raise UsageProblem(
            f"{adapter!r} is not an adapter.",
            hint='"adapter": "noir", or a blend, {"noir": 0.7, "shanty": 0.3}',
        )
    for part in parse_adapter(adapter) if isinstance(adapter, str) else from_mapping(adapter):
        store[str(part.ref)]  # raises, naming the nearest


def _job(where: str, line: str) -> Job:
    try:
        job = json.loads(line)
    except (ValueError, RecursionError):
        job = None
    if isinstance(job, str):
        job = {"prompt": job}
    if not isinstance(job, dict) or not isinstance(job.get("prompt"), str):
        raise DataError(
            f"{where} is no job; that is a JSON object with a 'prompt'.",
            hint='{"prompt": "The sea", "adapter": "noir", "max_new_tokens": 50}',
        )
    return Job(where, job.pop("prompt"), job.pop("adapter", None) or None, job)
