"""What the counts of a text suggest: how long a row, how many passes, whether the tokenizer fits."""

from __future__ import annotations

from dataclasses import dataclass

from adapterkit.data.corpus import Ints
from adapterkit.data.tally import TokenCounts

FEW_BYTES = 2.5  # a token; GPT-2 has 3.4 to 4.5 on English, 2.8 on German and French, 1.4 to 2.2 on Cyrillic or Chinese
CONTEXTS = (128, 256, 512, 1024)
WHOLE = 0.95  # share of the documents that the advised context holds whole
SEEN = 2_000_000  # tokens in all passes after which a text of any size has been seen enough
PASSES, PASSES_UNTESTED = 20, 5  # as `epochs: auto` has them


@dataclass(frozen=True)
class Advice:
    context: int
    whole: float  # share of the documents that it holds whole
    context_why: str
    epochs: int
    epochs_why: str


def tokenizer_hint(per_token: float) -> str:
    if not per_token or per_token >= FEW_BYTES:
        return ""
    return (
        f"{per_token:.1f} bytes a token is little: the base's tokenizer was not made for this language, so it "
        "reads in scraps and needs much more text to learn. Plain English has 2.7 or more."
    )


def advise(lengths: Ints, tokens: TokenCounts, most: int) -> Advice:
    """Advice for documents of these lengths, on a base that sees ``most`` tokens."""
    most = min(most, CONTEXTS[-1])
    shares = {n: float((lengths <= n).mean()) for n in (*(c for c in CONTEXTS if c < most), most)}
    context = next((n for n, share in shares.items() if share >= WHOLE), most)
    whole = shares[context]
    passes = PASSES if tokens.held_out else PASSES_UNTESTED
    epochs = min(passes, max(1, round(SEEN / max(tokens.learned, 1))))
    return Advice(
        context, round(whole, 4), _context_why(whole, most), epochs, _epochs_why(tokens, epochs, passes)
    )


def _context_why(whole: float, most: int) -> str:
    if whole >= WHOLE:
        return f"holds {_percent(whole)} of the documents whole"
    fit = (
        f"{_percent(whole)} of the documents fit whole, longer ones"
        if whole
        else "no document fits whole, they"
    )
    return f"a row holds no more than that; {fit} go on in the next"


def _epochs_why(tokens: TokenCounts, epochs: int, passes: int) -> str:
    if not tokens.held_out:
        return f"no more than {passes} without a test: nothing would stop it from copying"
    if epochs == passes:
        return f"few tokens, so the most of auto, {passes}; it stops when the test gets no better"
    return (
        f"about {SEEN // 1_000_000} million tokens in all are enough; auto stops when the test gets no better"
    )


def _percent(share: float) -> str:
    """Rounded down, so that only everything is 100 %."""
    return f"{int(share * 1000) / 10:g} %"
