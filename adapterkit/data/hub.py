"""Datasets of the Hugging Face Hub, through the datasets library, each at one known commit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adapterkit import network
from adapterkit.errors import DataError, Unreachable
from adapterkit.recipe.schema import DataSpec

COMMIT = re.compile(r"[0-9a-f]{40}")


def read_hub(dataset: str, spec: DataSpec) -> tuple[Iterable[dict[str, object]], str | None, list[str]]:
    """Rows of a Hub dataset, the commit they come from, and what to say.

    The Hub is asked for its commit, unless the recipe names one that is
    cached. When it is silent the cache is used, and that is said.

    Raises:
        Unreachable: the Hub does not answer and nothing is cached.
        DataError: no such dataset, configuration or split.
    """
    said: list[str] = []
    folder = _cached(dataset, spec) if COMMIT.fullmatch(spec.revision or "") else None
    try:
        if folder is None:
            commit = network.commit(dataset, "dataset", spec.revision)
            folder = _cached(dataset, spec, commit)
        builder = _from_cache(dataset, folder) if folder else _download(dataset, spec, commit)
    except network.Refused as e:
        raise _no_such(dataset, spec, str(e)) from e
    except network.Silent as e:
        folder = _cached(dataset, spec)
        if folder is None:
            raise unreachable(f"the dataset {_named(dataset, spec)}", str(e)) from e
        builder = _from_cache(dataset, folder)
        said.append(f"{dataset} comes from the cache, commit {folder.name[:8]}, as {e}.")
    try:
        return builder.as_dataset(split=spec.split), builder.hash, said
    except ValueError as e:
        raise _no_such(dataset, spec, str(e)) from e


def unreachable(what: str, why: str) -> Unreachable:
    return Unreachable(
        f"{what} is not on this computer, and {why}.",
        hint="connect once, or set HF_ENDPOINT or HF_HOME to a mirror or cache, or train on a FILE or FOLDER "
        "(with --base embedded, a toy, nothing is ever downloaded)",
        details={"host": network.host()},
    )


def _no_such(dataset: str, spec: DataSpec, told: str) -> DataError:
    return DataError(
        f"the Hub has no dataset {_named(dataset, spec)} with split {spec.split!r}: {_first_line(told)}",
        hint=f"look at {network.endpoint()}/datasets/{dataset}; set data.subset and data.split",
    )


def _named(dataset: str, spec: DataSpec) -> str:
    subset = f" with subset {spec.subset!r}" if spec.subset else ""
    return f"{dataset!r}{f' at {spec.revision!r}' if spec.revision else ''}{subset}"


def _first_line(text: str) -> str:
    return (text.strip() or "no reason was given").splitlines()[0]


def _download(dataset: str, spec: DataSpec, commit: str) -> Any:
    """A builder whose Arrow files are in the cache, at exactly this commit."""
    import datasets
    import httpx2  # huggingface_hub's client, which lets its errors through
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(dataset, spec.subset, revision=commit)
        if builder.hash != commit:  # datasets itself fell back to another commit in its cache
            raise network.Silent(f"{network.host()} stopped answering")
        builder.download_and_prepare()
    except (httpx2.HTTPError, ConnectionError) as e:
        raise network.judge(e) from e
    except (ValueError, RuntimeError, FileNotFoundError, DatasetsError) as e:
        raise _no_such(dataset, spec, str(e)) from e
    return builder


def _from_cache(dataset: str, folder: Path) -> Any:
    """A builder of prepared Arrow files; it never asks the network, and takes no other commit."""
    from datasets.packaged_modules.cache.cache import Cache

    config, version, commit = folder.parts[-3:]
    return Cache(
        repo_id=dataset,
        dataset_name=dataset.split("/")[-1],
        config_name=config,
        version=version,
        hash=commit,
    )


def _cached(dataset: str, spec: DataSpec, commit: str | None = None) -> Path | None:
    """The newest folder of prepared Arrow files that the recipe may mean: ``.../CONFIG/VERSION/COMMIT``."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    wanted = commit or _last_known(dataset, spec.revision)
    *owner, name = dataset.split("/")
    root = Path(datasets.config.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(name)])
    found = [p.parent for p in root.glob(f"{spec.subset or '*'}/*/{wanted}/dataset_info.json")]
    found = [p for p in found if COMMIT.fullmatch(p.name)]
    if spec.subset is None and len({p.parts[-3] for p in found}) > 1:
        found = [p for p in found if p.parts[-3] == "default"]
    return max(found, key=lambda p: p.stat().st_mtime, default=None)


def _last_known(dataset: str, revision: str | None) -> str:
    """The commit that a branch or tag was last, as huggingface_hub notes it; any, when the recipe names none."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionResolutionError

    if revision is None:
        return "*"
    try:
        told = HfApi().resolve_revision(
            dataset, repo_type="dataset", revision=revision, local_files_only=True
        )
    except RevisionResolutionError:
        return "unknown"
    return told.resolved
