"""What would be learned from a text, without training: the text is prepared as ``train`` does, and reported.

Of the base only its config and tokenizer are fetched. Never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from adapterkit.cache import text_folder
from adapterkit.data.prepare import Prepared, prepare
from adapterkit.data.report import DataReport, report
from adapterkit.data.sources import Documents
from adapterkit.errors import DataError
from adapterkit.model import base as bases
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe.load import Loaded
from adapterkit.training.events import Listener, Read, Said, ignore
from adapterkit.training.resolve import row_length
from adapterkit.training.source import Source, understand


@dataclass(frozen=True)
class Look:
    """Text prepared to be looked at."""

    prepared: Prepared
    base: str  # a Hub id, embedded or a folder's name, never a path
    tokenizer: Tokenizer
    length: int  # tokens in a row
    context: int  # positions of the base
    refusal: DataError | None  # what training would say instead of starting

    def report(self, samples: int = 3) -> DataReport:
        told = report(self.prepared, self.tokenizer, self.length, samples=samples, context=self.context)
        return replace(told, refused=self.refusal.message if self.refusal else None)


def describe(
    source: Source,
    *,
    base: str | None = None,
    samples: int = 3,
    on_event: Listener | None = None,
    **keys: Any,
) -> DataReport:
    """Read, clean, split and pack a text as ``train`` would, and report on it.

    Args:
        source: as for ``train``: a file, folder, glob, Hub id, list of files, ``Documents``,
            a recipe's name or path, or a Recipe.
        base: whose tokenizer and context count; the recipe's, normally gpt2, when left out.
        samples: how many documents to show.
        on_event: told what is read, see ``adapterkit.training.events``.
        keys: recipe keys as flags: ``document="line", max_length=256``.

    Raises:
        AdapterKitError: the text can't be read. Too little of it is no error here: see ``refused``.
    """
    tell = on_event or ignore
    told = keys if base is None else {"base": base, **keys}
    loaded, memory = understand(source, told, tell, verb="describe")
    return look(loaded, memory=memory, tell=tell).report(samples)


def look(loaded: Loaded, *, memory: Documents | None = None, tell: Listener = ignore) -> Look:
    """``describe`` for a loaded recipe, with the rows themselves."""
    recipe = loaded.recipe
    base = bases.locate(recipe.base, loaded.folder, on_download=lambda line: tell(Said(line)), weights=False)
    tokenizer, length = Tokenizer(base.folder), row_length(recipe, base)
    prepared = prepare(
        recipe.data,
        tokenizer,
        length,
        loaded.folder,
        memory,
        cache=text_folder(),
        progress=lambda documents, characters: tell(Read(documents, characters)),
        strict=False,
    )
    for line in prepared.said:
        tell(Said(line))
    return Look(prepared, base.id, tokenizer, length, base.context, prepared.refusal)
