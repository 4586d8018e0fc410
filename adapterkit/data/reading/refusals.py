"""What to do about files that can't be read: name them, or stop.

A picture among the chapters is only named. Writing that can't be read stops
the run unless ``data.skip_unreadable``, as leaving it out is for a person to
decide; and so does anything that was named by itself.
"""

from __future__ import annotations

from collections import Counter

from adapterkit.data.reading.listing import Listing, Refused
from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec

FEW = 2  # files named one by one
SKIP = "save them as .docx or .txt, or leave them out: --skip-unreadable"
HINTS = {
    "a spreadsheet": "save it as .csv",
    "slides": "save it as .txt",
    "an archive": "unpack it, or pack it as .zip",
    "packed with gzip": "unpack it first: gunzip",
    "a lock file of Word": "name the document itself, without ~$",
    "no permission to read it": "allow reading it, or copy it to a folder of yours",
    "it is gone": "look where it went, and try again",
    "it has a password": "save it without a password",
    "not text": "give text: .txt .md .docx .odt .epub .html .jsonl .json .csv .tsv .parquet, also in .gz or .zip",
    "binary data": "save it as .txt in UTF-8",
    "a damaged zip": "copy it again",
    "damaged": "copy it again, or open it and save it as .docx or .txt",
}
KINDS = HINTS["not text"].removeprefix("give text: ")


def checked(listings: list[Listing], spec: DataSpec) -> list[str]:
    """Names and reasons of what is left out.

    Raises:
        DataError: files that can't be read but may be meant, all at once; or nothing is left.
    """
    for listing in listings:
        if listing.named and listing.refused:
            raise _named(listing.source, listing.refused[0])
    refused = [r for listing in listings for r in listing.refused]
    stopping = [r for r in refused if r.stops]
    if stopping and not spec.skip_unreadable:
        raise _stopped(stopping, len(stopping) + sum(len(listing.items) for listing in listings))
    for listing in listings:
        if not listing.items and not listing.repeats:
            shown = ", ".join(map(str, listing.refused[:4])) + (", ..." if len(listing.refused) > 4 else "")
            raise nothing(listing.source, shown or "it is empty")
    return [str(r) for r in refused]


def found_late(refused: Refused, listing: Listing) -> DataError:
    """The error for a file that could not be read to its end."""
    if listing.named:
        return _named(listing.source, refused)
    return _stopped([refused], len(listing.items))


def nothing(source: str, why: str) -> DataError:
    return DataError(
        f"there is nothing to read in {source}: {why}.", hint=f"text can be {KINDS}", code="no-text"
    )


def _named(source: str, refused: Refused) -> DataError:
    if refused.reason == "empty":
        return nothing(source, "it is empty")
    hint = next(
        (h for reason, h in HINTS.items() if refused.reason.startswith(reason)), "save it as .docx or .txt"
    )
    return DataError(
        f"{source} can't be read ({refused.reason}), nothing was trained.",
        hint=hint,
        code="unreadable-text",
        details={"files": [str(refused)]},
    )


def _stopped(refused: list[Refused], total: int) -> DataError:
    if len(refused) <= FEW:
        shown = ", ".join(map(str, refused))
        what = f"{len(refused)} of {total:,} files can't be read: {shown}; nothing was trained."
    else:
        sorts = Counter(r.ending or r.reason for r in refused).most_common()
        shown = ", ".join(f"{sort} {count:,}" for sort, count in sorts)
        what = f"{len(refused):,} of {total:,} files can't be read ({shown}), nothing was trained."
    return DataError(what, hint=SKIP, code="unreadable-text", details={"files": [str(r) for r in refused]})
