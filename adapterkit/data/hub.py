"""Datasets of the Hugging Face Hub, through the datasets library as it is."""

from __future__ import annotations

import os
from collections.abc import Iterable

from adapterkit import network
from adapterkit.errors import DataError, Unreachable
from adapterkit.recipe.schema import DataSpec


def read_hub(dataset: str, spec: DataSpec) -> tuple[Iterable[dict[str, object]], str | None, list[str]]:
    """Rows of a Hub dataset, the commit they come from, and what to say.

    Offline the cache of the datasets library is used; nothing there is an error.

    Raises:
        Unreachable: the Hub does not answer and nothing is cached.
        DataError: no such dataset, configuration or split.
    """
    online = network.answers(f"/api/datasets/{dataset}")
    if not online:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when datasets is first imported
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    datasets.disable_progress_bars()
    revision = spec.revision
    try:
        if online:
            revision = HfApi().dataset_info(dataset, revision=spec.revision, timeout=network.DEADLINE).sha
        loaded = datasets.load_dataset(dataset, spec.subset, split=spec.split, revision=revision)
    except (HfHubHTTPError, ValueError, ConnectionError, FileNotFoundError) as e:
        if not online:
            raise unreachable(f"the dataset {dataset!r}") from e
        raise DataError(
            f"the Hub has no dataset {dataset!r} with subset {spec.subset!r} and split {spec.split!r}: "
            f"{str(e).splitlines()[0]}",
            hint=f"look at {network.endpoint()}/datasets/{dataset}; set data.subset and data.split",
        ) from e
    return loaded, revision, [] if online else [f"The Hub did not answer; {dataset} comes from the cache."]


def unreachable(what: str) -> Unreachable:
    host = network.endpoint().partition("//")[2]
    return Unreachable(
        f"{what} is not on this computer, and {host} did not answer within {network.DEADLINE:.0f} s.",
        hint="connect once, or set HF_ENDPOINT or HF_HOME to a mirror or cache, or train on a file or folder",
    )
