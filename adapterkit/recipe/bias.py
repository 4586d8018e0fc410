"""How the bias of a token is written: ``TOKEN=BIAS``, such as `` whale=5`` or ``262=-100``."""

from __future__ import annotations

from math import isfinite

MOST = 100.0  # OpenAI's limit


def parse_bias(text: str) -> tuple[int | str, float]:
    """``TOKEN=BIAS``: a token, digits alone being its id, and what is added to its score.

    Raises:
        ValueError: it has another form, or the bias is beyond MOST.
    """
    token, _, number = text.rpartition("=")
    try:
        bias = float(number)
    except ValueError:
        bias = float("nan")
    if not token or not isfinite(bias) or abs(bias) > MOST:
        raise ValueError(f"{text!r}, which is not TOKEN=BIAS with a number from -100 to 100")
    return int(token) if token.isascii() and token.isdigit() else token, bias
