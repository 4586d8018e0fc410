"""What SOURCE on the command line is: a recipe, text on this disk, ``-`` for stdin, or a dataset on the Hub.

The order is fixed and the answer is always said. A path that does not exist
never goes to the network.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adapterkit.errors import DataError, NotFound, UsageProblem, nearest
from adapterkit.files import shown
from adapterkit.recipe import load

# endings that show a path is meant; some of them only to be refused with a better word
TEXT_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("txt", "text", "md", "markdown", "html", "htm", "xhtml", "docx", "odt", "epub"),
        *("jsonl", "ndjson", "json", "csv", "tsv", "parquet", "gz", "zip"),
        *("rtf", "pdf", "doc", "pages", "wpd", "xlsx"),
    )
)
STDIN = "-"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Resolved:
    """One SOURCE, understood."""

    kind: Literal["recipe", "text", "hub"]
    value: str  # path of the recipe or text, or the Hub id
    said: str  # the line that tells which it was

    @property
    def name(self) -> str:
        """The name an adapter gets from it, before it is made a valid one."""
        if self.value == STDIN:
            return "stdin"
        return (
            Path(self.value.rstrip("/")).name.split(".")[0]
            if self.kind != "hub"
            else self.value.split("/")[-1]
        )


def resolve(text: str) -> Resolved:
    """Say what a SOURCE is.

    Raises:
        DataError: it looks like a path and is not there (code no-such-text).
        UsageProblem: it is both a folder and a recipe, or a version.
        NotFound: no recipe of that name.
    """
    if text.endswith((".yaml", ".yml")):
        return Resolved("recipe", text, f"Recipe {text}.")
    if text == STDIN:
        return Resolved("text", text, "Text from stdin.")
    bare = re.fullmatch(r"[\w-]+", text) is not None
    path = os.path.expanduser(text)
    on_disk = os.path.exists(path) or any(glob.iglob(path, recursive=True))
    recipe = _recipe(text) if bare else None
    if on_disk and recipe:
        raise UsageProblem(
            f"{text!r} is a file or folder here and also a recipe.",
            hint=f"adapterkit train ./{text}     or: adapterkit train --recipe {text}",
        )
    if on_disk:
        return Resolved("text", path, f"Text {text}.")
    if text[:1] in (".", "/", "~") or text.endswith("/") or Path(text).suffix.lower() in TEXT_SUFFIXES:
        raise no_such_text(text)
    if text.startswith("hub:"):
        return Resolved("hub", text.removeprefix("hub:"), f"Dataset {text.removeprefix('hub:')} on the Hub.")
    if HUB_ID.fullmatch(text):
        return Resolved("hub", text, f"Dataset {text} on the Hub.")
    if recipe:
        where = "" if recipe.parent == Path("configs") else " that comes with AdapterKit"
        return Resolved("recipe", str(recipe), f"Recipe {text}{where}.")
    if "@" in text:
        name = text.partition("@")[0]
        raise UsageProblem(
            f"{text!r} is a version, not a text.",
            hint=f"adapterkit show {text} --recipe     "
            f"(how it was made; a new version comes from its text: adapterkit train FOLDER-OR-FILE --name {name})",
        )
    return _neither(text)


def no_such_text(text: str) -> DataError:
    """The path error, with the nearest thing that is there."""
    path = Path(os.path.expanduser(text.rstrip("/")))
    folder = path.parent
    around = [p.name + ("/" if p.is_dir() else "") for p in folder.iterdir()] if folder.is_dir() else []
    close = nearest(path.name, [a for a in around if not a.startswith(".")])
    prefix = "" if str(folder) == "." else f"{folder}/"
    hint = (
        f"adapterkit train {_pasted(prefix + close)}"
        if close
        else "give a file, a folder or a glob that is there"
    )
    return DataError(
        f"there is no file or folder {text!r} in {shown(folder if folder.is_absolute() else Path.cwd())}.",
        hint=f"{hint}     (a dataset on the Hub is written owner/name or hub:name)",
        code="no-such-text",
    )


def _pasted(path: str) -> str:
    """A path as one word of the shell; a shell knows no ``~`` between quotes."""
    short = shown(path)
    return short if shlex.quote(path) == path else shlex.quote(path)


def _recipe(name: str) -> Path | None:
    here = Path("configs") / f"{name}.yaml"
    return here if here.is_file() else load.packaged(name)


def _neither(text: str) -> Resolved:
    known = {*load.packaged_names(), *(p.stem for p in Path("configs").glob("*.yaml"))}
    close = nearest(text, known)
    if close:
        raise NotFound(f"there is no recipe or text {text!r}.", hint=f"adapterkit train {close}")
    error = no_such_text(text)
    raise NotFound(
        f"there is no recipe, file or folder {text!r} here.",
        hint=f"{error.hint}; recipes: {', '.join(sorted(known))}",
    )
