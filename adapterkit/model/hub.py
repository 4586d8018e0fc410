"""A base from the Hugging Face Hub: the cache first, then one quick question, then the download."""

from __future__ import annotations

from pathlib import Path

from adapterkit import network
from adapterkit.errors import NotFound, Unreachable

ALIASES = {"gpt2": "openai-community/gpt2", "distilgpt2": "distilbert/distilgpt2"}
ALIASES |= {f"gpt2-{size}": f"openai-community/gpt2-{size}" for size in ("medium", "large", "xl")}
NEEDED = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]
NEEDED += ["vocab.json", "merges.txt"]


def fetch(repo: str) -> tuple[Path, str]:
    """Folder and commit of a Hub model, downloaded once.

    What is cached is used without asking the network.

    Raises:
        Unreachable: not cached, and the Hub does not answer in time.
        NotFound: the Hub has no such model.
    """
    name = ALIASES.get(repo, repo)
    if cached := _cached(name):
        return cached
    if not network.answers(f"/api/models/{name}"):
        raise unreachable(repo)
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        commit = HfApi().model_info(name, timeout=network.DEADLINE).sha
        folder = snapshot_download(name, revision=commit, allow_patterns=NEEDED)
    except LocalEntryNotFoundError as e:
        raise unreachable(repo) from e
    except HfHubHTTPError as e:
        raise NotFound(
            f"the Hub has no model {repo!r} that can be read ({str(e).splitlines()[0]}).",
            hint="--base gpt2, a folder with a GPT-2, or embedded",
        ) from e
    return Path(folder), str(commit)


def unreachable(repo: str) -> Unreachable:
    host = network.endpoint().partition("//")[2]
    return Unreachable(
        f"the base {repo!r} is not on this computer, and {host} did not answer within {network.DEADLINE:.0f} s.",
        hint="connect once (gpt2: 548 MB), or set HF_ENDPOINT or HF_HOME to a mirror or cache, "
        "or --base FOLDER, or --base embedded (a toy)",
        details={"base": repo, "endpoint": network.endpoint()},
    )


def _cached(name: str) -> tuple[Path, str] | None:
    """The newest whole snapshot in Hugging Face's cache."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(name, file) for file in ("config.json", "model.safetensors")]
    if not all(isinstance(f, str) for f in found):
        return _any_snapshot(name)
    folder = Path(str(found[0])).parent
    return folder, folder.name


def _any_snapshot(name: str) -> tuple[Path, str] | None:
    """A download pinned to a commit leaves no ``main`` reference; look at the snapshots themselves."""
    from huggingface_hub.constants import HF_HUB_CACHE

    root = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "snapshots"
    whole = [p for p in root.glob("*") if (p / "config.json").exists() and (p / "model.safetensors").exists()]
    newest = max(whole, key=lambda p: p.stat().st_mtime, default=None)
    return (newest, newest.name) if newest else None
