"""``generate --prompts FILE --out FILE.jsonl``: a text for each prompt of a file, several at a time, in their order."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from adapterkit import files
from adapterkit.errors import DataError, NotFound, UsageProblem

if TYPE_CHECKING:
    from concurrent.futures import Future

    from adapterkit.generation.generator import Generator
    from adapterkit.generation.results import Completion

AHEAD = 64  # prompts that are on their way: enough to keep every row busy, few enough to be held


def read(path: Path) -> list[dict[str, Any]]:
    """Jobs from a file: a prompt a line, or JSON lines with ``prompt`` and, if wanted, ``adapter`` and settings.

    Raises:
        NotFound: no such file.
        DataError: a line that is no job, by its number.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path}.", hint="--prompts FILE, a prompt a line")
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return [{"prompt": line} for line in lines if line.strip()]
    return [_job(path, n, line) for n, line in enumerate(lines, 1) if line.strip()]


def write(
    generator: Generator, adapter: str, jobs: list[dict[str, Any]], told: Mapping[str, Any], out: Path
) -> int:
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
    generator: Generator, adapter: str, jobs: list[dict[str, Any]], told: Mapping[str, Any]
) -> Iterator[Completion]:
    waiting: deque[Future[Completion]] = deque()
    try:
        for job in jobs:
            own = {k: v for k, v in job.items() if k not in ("prompt", "adapter")}
            waiting.append(generator.submit(job["prompt"], job.get("adapter") or adapter, **{**told, **own}))
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


def _job(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        job = json.loads(line)
    except ValueError:
        job = None
    if isinstance(job, str):
        job = {"prompt": job}
    if not isinstance(job, dict) or not isinstance(job.get("prompt"), str):
        raise DataError(
            f"{path} line {number} is no job; that is a JSON object with a 'prompt'.",
            hint='{"prompt": "The sea", "adapter": "noir", "max_new_tokens": 50}',
        )
    return job
