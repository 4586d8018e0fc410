"""``pack``, ``import``, ``push``: versions given away and brought in. Never imports torch before it must."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from adapterkit.cli import named
from adapterkit.cli.output import common, counted, emit, note
from adapterkit.errors import UsageProblem
from adapterkit.files import human_size, sha256_file, shown
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version


@click.command("pack")
@click.argument("refs", nargs=-1, required=True, metavar="REF...")
@click.option("--to", default=".", metavar="DIR", help="The folder for the files.  [here]")
@click.option(
    "--half", is_flag=True, help="Weights in fp16: half the size, as a version NAME-half of its own."
)
@common
def pack_verb(
    refs: tuple[str, ...], to: str, half: bool, registry: str | None, as_json: bool, quiet: bool
) -> None:
    """One file each to give away.

    NAME-VERSION.adapter.safetensors holds weights, scores and how they were made,
    and no text of yours.
    """
    store = Registry(registry)
    versions = named.versions(store, refs, "pack")
    folder = Path(to).expanduser()
    packed = [(v, store.pack(v.ref, to=folder, half=half)) for v in versions]
    if as_json:
        emit({"packed": [_packed(v, path) for v, path in packed]})
        return
    for _, path in packed:
        size = f"   {human_size(path.stat().st_size)}   sha256 {sha256_file(path)}"
        click.echo(str(path) if quiet else f"{path}{size}")
    if not quiet:
        note(
            f"brought in by: adapterkit import {packed[0][1].name}     (holds no text of yours; the adapter may have learned some by heart)"
        )


def _packed(v: Version, path: Path) -> dict[str, Any]:
    return {"ref": v.ref, "path": str(path), "bytes": path.stat().st_size, "sha256": sha256_file(path)}


@click.command("import")
@click.argument("source", metavar="FILE|FOLDER|hub:ID")
@click.option("--name", help="What it is called here.  [its own name]")
@click.option("--sha256", metavar="HEX", help="Refuse any other file than this.")
@click.option("--base", metavar="BASE", help="The base it was made for.  [what its config says]")
@click.option("--force-base", is_flag=True, help="Import it for a base of another name; this is recorded.")
@click.option("--revision", metavar="REV", help="Commit, branch or tag on the Hub.")
@common
def import_verb(
    source: str, name: str | None, sha256: str | None, base: str | None, force_base: bool, revision: str | None,
    registry: str | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Bring in a packed file, a folder of PEFT, or an adapter of the Hub."""
    store = Registry(registry)
    before = {v.digest: v.deleted for v in store.versions(deleted=True)}
    from adapterkit.sharing.incoming import add

    v = add(store, source, name=name, sha256=sha256, base=base, force_base=force_base, revision=revision,
            say=lambda text: note(text, quiet or as_json))  # fmt: skip
    existed, restored = v.digest in before, before.get(v.digest, False)
    forced = bool(v.manifest["base"].get("forced"))
    if forced:
        note(
            f"{v.ref} was made for {v.manifest['base'].get('named') or 'another base'}; it is kept for {v.base} because of --force-base."
        )
    if as_json:
        emit(
            {
                "ref": v.ref,
                "digest": v.digest,
                "existed": existed,
                "restored": restored,
                "forced_base": forced,
                "path": str(v.path),
                "size": v.size,
            }
        )
    elif quiet:
        click.echo(v.ref)
    else:
        click.echo(_brought(v, existed, restored))


def _brought(v: Version, existed: bool, restored: bool) -> str:
    if restored:
        return f"restored {v.ref} {v.digest[:8]}, which was deleted here"
    if existed:
        return f"that is {v.ref} {v.digest[:8]} already, every byte as it was published"
    return (
        f"imported {v.ref} {v.digest[:8]}   {human_size(v.size)} in {shown(v.path)}\n"
        f"next    adapterkit chat {v.name}\n"
        f"        adapterkit show {v.ref}"
    )


@click.command("push")
@click.argument("ref")
@click.argument("repo", metavar="HUB-ID")
@click.option("--public", is_flag=True, help="Everyone may read it.  [private]")
@click.option(
    "--allow-copies", is_flag=True, help="Publish although its samples copied 30 words or more of its text."
)
@common
def push_verb(
    ref: str, repo: str, public: bool, allow_copies: bool, registry: str | None, as_json: bool, quiet: bool
) -> None:
    """Upload a version to the Hugging Face Hub; private unless --public."""
    store = Registry(registry)
    v = named.version(store, ref, "push", repo)
    repo = repo.removeprefix("hub:")
    if allow_copies and not public:
        raise UsageProblem(
            "--allow-copies is for --public.", hint=f"adapterkit push {v.ref} {repo} --public --allow-copies"
        )
    from adapterkit.sharing import hub

    hub.check_repository(repo, v)
    files = hub.files_to_push(store, v.ref)
    silent = quiet or as_json
    if not silent:
        _list_files(v, repo, files, public)
    url = hub.push(
        store, v.ref, repo, public=public, allow_copies=allow_copies, say=lambda text: note(text, silent)
    )
    if as_json:
        emit({"ref": v.ref, "digest": v.digest, "repository": repo, "url": url, "public": public,
              "files": [{"name": n, "bytes": size} for n, size in files]})  # fmt: skip
    else:
        click.echo(url)


def _list_files(v: Version, repo: str, files: list[tuple[str, int]], public: bool) -> None:
    """What will leave this computer, before it does."""
    who = "everyone" if public else "only you"
    note(f"{counted(len(files), 'file')} of {v.ref} for {repo}, which {who} can read:")
    for name, size in files:
        note(f"  {name:<28} {human_size(size)}")
    sys.stderr.flush()
