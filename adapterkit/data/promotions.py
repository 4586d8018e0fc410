"""What authors of short stories on forums add below them: links, "subscribe", r/name, PART 2.

``TUTORIAL`` is how a public tutorial removes that, kept to show what it costs. Its
lazy ``.*?`` begins at the story's first ``<nl>``, so everything after the first
paragraph goes, the mark of the end as well, and the story runs into the next one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import regex

from adapterkit.errors import DataError

TUTORIAL = regex.compile(r"<nl>.*?(\[.*?\]\(http[s]?://\S+\)|subscribe|/r/|PART \d+).*?<eos>")
TRIGGER = re.compile(r"(?:\]\(http|subscribe|/r/|PART \d)\S*")
SECONDS = 1.0  # for a line, or each megabyte of a longer one
END = "<eos>"

PROMOTES = re.compile(r"https?://|\bwww\.\w|(?i:\bsubscribe\b)|(?<![\w/])/?r/[A-Za-z]\w|\bP(?:ART|art) \d")
HEADING = re.compile(r"\W*P(?:ART|art) \d+\W*")  # alone on its line
LAST = 3  # paragraphs; further up it belongs to the story


def without_promotion(text: str) -> str:
    """The text without its last promotion, if that is one of the last three paragraphs; a line is a paragraph."""
    lines = text.split("\n")
    told = [i for i, line in enumerate(lines) if line.strip()]
    for i in reversed(told[-LAST:]):
        heads = i != told[-1] and HEADING.fullmatch(lines[i])  # what follows is a chapter
        if PROMOTES.search(lines[i]) and not heads:
            return "\n".join([*lines[:i], *lines[i + 1 :]]).rstrip("\n")
    return text


@dataclass
class AsPrinted:
    """The tutorial's pattern on the lines of a file, and what it costs."""

    stories: int = 0  # that lose something; each loses its end mark
    lost: int = 0  # characters
    shares: float = 0.0  # of each story, summed up
    most: float = 0.0
    least: float = 1.0

    def line(self, line: str) -> str:
        """One line as the tutorial leaves it. A dot finds no line break, so no match goes beyond one."""
        promotions = list(TRIGGER.finditer(line))
        if not promotions or (end := self._last_end(line, promotions[-1].end())) < 0:
            return line
        head = line[:end]  # beyond nothing can match, and looking there would take quadratic time
        try:
            cut: str = TUTORIAL.sub(self._cost, head, timeout=SECONDS * max(1.0, len(head) / (1 << 20)))
        except TimeoutError:
            raise DataError(
                f"promotions-as-printed takes too long on a line of {len(line):,} characters.",
                hint="use the rule promotions instead; it takes one look at each paragraph",
                code="slow-pattern",
            ) from None
        return cut + line[end:]

    def _last_end(self, line: str, after: int) -> int:
        """Behind the end mark that follows the last promotion; -1 if there is none at all."""
        at = line.find(END, after)
        at = at if at >= 0 else line.rfind(END)
        return at + len(END) if at >= 0 else -1

    def _cost(self, match: Any) -> str:
        line, at = match.string, match.start()
        for story in match[0].split(END)[:-1]:
            before = line.rfind(END, 0, at)
            begins = before + len(END) if before >= 0 else 0
            gone = len(story) + len(END)
            share = gone / (at + gone - begins)
            self.stories += 1
            self.shares += share
            self.most, self.least = max(self.most, share), min(self.least, share)
            at += gone
        self.lost += len(match[0])
        return ""

    @property
    def told(self) -> str:
        if not self.stories:
            return ""
        return (
            f"{self.stories:,} stories lose {self.shares / self.stories:.0%} of their text on average "
            f"({self.least:.0%} to {self.most:.0%}) and the mark of their end, so each runs into the next"
        )
