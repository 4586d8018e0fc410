"""Third-party messages on the happy path that no option turns off, silenced by exact text.

Each entry names the library and version it was seen in and why it is noise
here. A test fails when an entry no longer occurs, so the list can't rot.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# peft 0.21.2 reads the old name on every attach; transformers 5.23.0 has renamed it. Nothing of ours uses either.
CHECKPOINTING = (
    "`is_gradient_checkpointing` is deprecated and will be removed in v6. "
    "Use `is_activation_checkpointing` instead."
)
# bitsandbytes 0.50.2, imported by peft on a CPU with avx512_bf16, asks for an optional package that AdapterKit does
# without: it would fetch compiled code from the Hub, for 4-bit products that are not used here.
KERNELS = (
    "Failed to load CPU gemm_4bit_forward from kernels-community: %s. Please make sure you already "
    "`pip install kernels` and the kernels >= 0.11.1"
)
# bitsandbytes 0.50.2, at every product of every layer in 8 bits: what goes in is float32 or bfloat16, as it should be.
CAST = "MatMul8bitLt: inputs will be cast from %s to float16 during quantization"


def quiet_bitsandbytes() -> None:
    """Before anything imports bitsandbytes; for good, as one message comes when it is first imported."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_no_noise)
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_no_noise)


def _is_no_noise(record: logging.LogRecord) -> bool:
    return record.msg not in (KERNELS, CAST)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Its own bars off (we show ours); they come back afterwards."""
    from transformers.utils import logging as hf

    was_on = hf.is_progress_bar_enabled()
    hf.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            hf.enable_progress_bar()


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Around ``get_peft_model``, which warns about a name that only peft itself uses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", re.escape(CHECKPOINTING) + "$", FutureWarning)
        yield
