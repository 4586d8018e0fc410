"""Versions on the Hugging Face Hub: ``fetch`` for ``import hub:ID``, ``push``.

What is pushed is the folder that PEFT loads, with our manifest beside it, so
that it comes back as the same version. Never ``private/``. The token is
huggingface_hub's own (HF_TOKEN, or its login); it is never read, kept or told
here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapterkit import network
from adapterkit.errors import CheckFailed, Damaged, NotFound, Unreachable, Unsupported, UsageProblem
from adapterkit.model.hub import bars_on_terminals_only
from adapterkit.registry.store import WEIGHTS, Registry
from adapterkit.registry.version import COPIED, MANIFEST, Version
from adapterkit.sharing import leaks, refusals, shipment
from adapterkit.sharing.shipment import TEXTS

REPO = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(?:/[A-Za-z0-9_][\w.-]{0,95})?")
LIKE_PEFT = ("adapter_config.json", MANIFEST)
OURS = frozenset({*TEXTS["lora"], *TEXTS["full"], *WEIGHTS.values(), MANIFEST})  # what a push may replace


def files_to_push(registry: Registry, ref: str) -> list[tuple[str, int]]:
    """Name and size of each file that ``push`` would upload, after all its checks of this computer.

    Raises:
        NotFound, Damaged, Unsupported: as ``packed.pack``.
    """
    return [(p.name, p.stat().st_size) for p in _files(_checked(registry, ref))]


def check_repository(repo_id: str, version: Version) -> None:
    """Refuse what can be no repository's name, before anything is hashed or sent."""
    is_one = (
        REPO.fullmatch(repo_id) and repo_id.count("/") == 1 and not any(x in repo_id for x in ("--", ".."))
    )
    if not is_one:
        raise UsageProblem(
            f"{repo_id!r} is no repository.", hint=f"adapterkit push {version.ref} YOUR-NAME/{version.name}"
        )


def push(
    registry: Registry,
    ref: str,
    repo_id: str,
    *,
    public: bool = False,
    allow_copies: bool = False,
    say: Callable[[str], None] | None = None,
) -> str:
    """Upload a version to a repository, which is made if it is not there.

    Args:
        public: whether everyone may read it; private otherwise.
        allow_copies: publish although its samples copied its text.
        say: told what is going on.

    Returns:
        The repository's address.

    Raises:
        CheckFailed: public, and its samples copied 30 words or more; or the
            repository is there already and is read by others than was asked for.
        Unreachable: the Hub does not answer.
        Unsupported: the Hub refuses it, for want of a login or of rights.
    """
    version = _checked(registry, ref)
    if public:
        _check_copies(registry, version, allow_copies)
    check_repository(repo_id, version)
    files = _files(version)
    if say:
        say(f"Uploading {len(files)} files of {version.ref} to {network.host()}.")
    with _asking(repo_id), bars_on_terminals_only():
        url, commit = _upload(version, files, repo_id, public)
    registry.record(version.name, "pushed", version.number, to=repo_id, commit=commit, public=public)
    return url


def fetch(repo: str, revision: str | None = None) -> tuple[Path, str]:
    """The folder and commit of an adapter on the Hub; only the files of an adapter are downloaded.

    Raises:
        Unreachable: the Hub does not answer.
        NotFound: it has no such repository or revision.
        Unsupported: what is there is pickled, or no adapter.
    """
    if not REPO.fullmatch(repo):
        raise UsageProblem(f"{repo!r} is no repository.", hint="adapterkit import hub:OWNER/NAME")
    try:
        commit = network.commit(repo, "model", revision)
        return _download(repo, commit), commit
    except network.Silent as e:
        raise _unreachable(repo, str(e)) from e
    except network.Refused as e:
        raise NotFound(
            f"the Hub has no repository {repo!r}{f' at {revision!r}' if revision else ''} that can be read ({e}).",
            hint="look it up in a browser; for a private one: hf auth login",
        ) from e


# --- down ---------------------------------------------------------------------


def _download(repo: str, commit: str) -> Path:
    import httpx2  # huggingface_hub's client, which lets its errors through
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        held = set(HfApi().list_repo_files(repo, revision=commit))
        _check_held(repo, held)
        foreign = [*TEXTS["lora"], WEIGHTS["lora"]]
        wanted = sorted(OURS) if MANIFEST in held else foreign
        with bars_on_terminals_only():
            return Path(snapshot_download(repo, revision=commit, allow_patterns=wanted))
    except (httpx2.HTTPError, HfHubHTTPError, FileNotFoundError) as e:
        raise network.judge(e) from e


def _check_held(repo: str, held: set[str]) -> None:
    pickled = sorted(held & set(refusals.PICKLED_WEIGHTS))
    if pickled and "adapter_config.json" in held and WEIGHTS["lora"] not in held:
        raise refusals.pickled(pickled[0])
    if not held & set(LIKE_PEFT):
        what = "is a whole model, not an adapter" if "config.json" in held else "holds no adapter"
        raise Unsupported(
            f"hub:{repo} {what}.",
            hint=f"use it as a base: adapterkit train SOURCE --base {repo}" if "config.json" in held else "",
        )


# --- up -----------------------------------------------------------------------


def _checked(registry: Registry, ref: str) -> Version:
    version = registry[ref]
    made = shipment.of_version(version)
    leaks.check(made.texts, made.manifest, version.path, version.ref)
    return version


def _files(version: Version) -> list[Path]:
    """Exactly what the manifest lists, and itself."""
    return [version.path / name for name in sorted([*version.manifest["files"], MANIFEST])]


def _check_copies(registry: Registry, version: Version, allow_copies: bool) -> None:
    """A blend, a merge or an extract was not tested itself: it is made of what its parents learned."""
    if allow_copies:
        return
    copied, who = max((v.metrics.copied_words or 0, v.ref) for v in _family(registry, version))
    if copied >= COPIED:
        by = "" if who == version.ref else f"is made of {who}, which "
        raise CheckFailed(
            f"{version.ref} {by}copied {copied} words in a row of its training text in its samples; everyone could read it.",
            hint="if the text may be published: --allow-copies; or push it privately: leave --public out",
            code="copies",
            details={"ref": version.ref, "copied_words": copied, "limit": COPIED},
        )


def _family(registry: Registry, version: Version) -> list[Version]:
    """A version and all it was made of, as far as they are here and whole."""
    known = {v.digest: v for v in registry.versions(deleted=True)}
    found, left = {version.digest: version}, [version]
    while left:
        for digest in left.pop().lineage.parents:
            with suppress(Damaged):
                if digest in known and digest not in found and known[digest].metrics:
                    found[digest] = known[digest]
                    left.append(known[digest])
    return list(found.values())


def _upload(version: Version, files: list[Path], repo: str, public: bool) -> tuple[str, str]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    made = api.create_repo(repo, private=not public, exist_ok=True)
    repo = made.repo_id
    info = api.model_info(repo)
    _check_openness(version, repo, public, is_private=bool(info.private))
    held = {s.rfilename for s in info.siblings or []}
    stale = sorted(held & OURS - {p.name for p in files})  # of a version of the other kind
    done = api.create_commit(
        repo,
        [*(CommitOperationAdd(p.name, str(p)) for p in files), *(CommitOperationDelete(n) for n in stale)],
        commit_message=f"{version.ref} {version.digest[:8]}",
        commit_description=f"AdapterKit, digest {version.digest}",
    )
    return f"{network.endpoint()}/{repo}", str(done.oid)


def _check_openness(version: Version, repo: str, public: bool, *, is_private: bool) -> None:
    """A repository that is there keeps who may read it, whatever was asked for."""
    if public and is_private:
        raise CheckFailed(
            f"{repo} is there already, and private: nobody else could read {version.ref}.",
            hint=f"adapterkit push {version.ref} {repo}     (or open it to everyone on the Hub first)",
            code="private",
        )
    if not public and not is_private:
        raise CheckFailed(
            f"{repo} is there already, and public: everyone could read {version.ref}.",
            hint=f"adapterkit push {version.ref} {repo} --public, or another repository",
            code="public",
        )


@contextmanager
def _asking(repo: str) -> Iterator[None]:
    """Errors of an upload as ours; a message never holds what was sent."""
    import httpx2
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    if is_offline_mode():
        raise _unreachable(repo, "HF_HUB_OFFLINE is set")
    try:
        yield
    except LocalTokenNotFoundError as e:
        raise _no_rights(repo, "there is no login on this computer") from e
    except (HfHubHTTPError, HFValidationError, httpx2.HTTPError, OSError, ValueError) as e:
        raise _failed(repo, e) from e
    except RuntimeError as e:  # how huggingface_hub wraps what ended the upload of a large file
        if not isinstance(e.__cause__, httpx2.HTTPError | OSError):
            raise
        raise _failed(repo, e.__cause__) from e


def _failed(repo: str, error: Exception) -> Unreachable | Unsupported:
    judged = network.judge(error)
    if isinstance(judged, network.Silent):
        return _unreachable(repo, str(judged))
    status = getattr(getattr(error, "response", None), "status_code", None)
    return _no_rights(repo, f"it answered {status}" if status else str(judged))


def _unreachable(repo: str, why: str) -> Unreachable:
    return Unreachable(
        f"{repo!r} on the Hub is out of reach: {why}.",
        hint="connect and run the same command again, or set HF_ENDPOINT to a mirror",
        details={"repo": repo, "host": network.host()},
    )


def _no_rights(repo: str, why: str) -> Unsupported:
    return Unsupported(
        f"the Hub does not take anything for {repo!r}: {why}.",
        hint="log in with a token that may write (hf auth login, or HF_TOKEN), and check the owner's name",
        details={"repo": repo},
    )
