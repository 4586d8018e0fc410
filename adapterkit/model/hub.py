"""A base from the Hugging Face Hub: the cache first, then one quick question, then the download."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from adapterkit import network
from adapterkit.errors import NotFound, Unreachable

ALIASES = {"gpt2": "openai-community/gpt2", "distilgpt2": "distilbert/distilgpt2"}
ALIASES |= {f"gpt2-{size}": f"openai-community/gpt2-{size}" for size in ("medium", "large", "xl")}
WEIGHTS = "model.safetensors"
NEEDED = [
    "config.json",
    "generation_config.json",
    WEIGHTS,
    "tokenizer.json",
    "tokenizer_config.json",
]
NEEDED += ["vocab.json", "merges.txt"]


def fetch(
    repo: str, on_download: Callable[[str], None] | None = None, *, weights: bool = True
) -> tuple[Path, str]:
    """Folder and commit of a Hub model, downloaded once.

    What is cached is used without asking the network. Without ``weights``
    only config and tokenizer are fetched: enough to look at text.

    Raises:
        Unreachable: not cached, and the Hub does not answer in time.
        NotFound: the Hub has no such model.
    """
    name = ALIASES.get(repo, repo)
    if cached := _cached(name, weights):
        return cached
    try:
        commit = network.commit(name, "model")
        if on_download and weights:
            on_download(f"Base {repo}, first use: downloading it to Hugging Face's cache (gpt2: 548 MB).")
        return _download(name, commit, [n for n in NEEDED if weights or n != WEIGHTS]), commit
    except network.Silent as e:
        raise unreachable(repo, str(e)) from e
    except network.Refused as e:
        raise NotFound(
            f"the Hub has no model {repo!r} that can be read ({e}).",
            hint="--base gpt2, a folder with a GPT-2, or embedded",
        ) from e


def unreachable(repo: str, why: str) -> Unreachable:
    return Unreachable(
        f"the base {repo!r} is not on this computer, and {why}.",
        hint="connect once (gpt2: 548 MB), or set HF_ENDPOINT or HF_HOME to a mirror or cache, "
        "or --base FOLDER, or --base embedded (a toy)",
        details={"base": repo, "host": network.host()},
    )


def _download(name: str, commit: str, wanted: list[str]) -> Path:
    import httpx2  # huggingface_hub's client, which lets its errors through
    from huggingface_hub import snapshot_download

    try:
        with bars_on_terminals_only():
            return Path(snapshot_download(name, revision=commit, allow_patterns=wanted))
    except (httpx2.HTTPError, FileNotFoundError) as e:  # the Hub left after its first answer
        raise network.judge(e) from e


@contextmanager
def bars_on_terminals_only() -> Iterator[None]:
    """Half a gigabyte needs a bar, a log file or a pipe does not."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    changes = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if changes:
        disable_progress_bars()
    try:
        yield
    finally:
        if changes:
            enable_progress_bars()


def _cached(name: str, weights: bool) -> tuple[Path, str] | None:
    """The whole snapshot that ``main`` was last, else the newest, in Hugging Face's cache.

    A download pinned to a commit, as ours, leaves no ``main`` reference.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    root = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    main = root / "refs" / "main"
    preferred = main.read_text().strip() if main.is_file() else ""
    whole = [p for p in (root / "snapshots").glob("*") if _is_whole(p, weights)]
    chosen = max(whole, key=lambda p: (p.name == preferred, p.stat().st_mtime), default=None)
    return (chosen, chosen.name) if chosen else None


def _is_whole(folder: Path, weights: bool) -> bool:
    """Whether a snapshot has all a base needs; a broken-off download may lack the tokenizer."""
    has = {name for name in NEEDED if (folder / name).exists()}
    return {"config.json", *([WEIGHTS] if weights else [])} <= has and (
        "tokenizer.json" in has or {"vocab.json", "merges.txt"} <= has
    )
