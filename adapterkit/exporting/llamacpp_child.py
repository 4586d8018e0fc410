"""What runs inside the child process: llama.cpp through llama-cpp-python's own C calls.

It is told on stdin, as JSON, what to load, and answers on stdout, as the last
line; the logits of each row go into a file of float32. Anything that goes wrong
in llama.cpp ends this process and no other. Nothing of AdapterKit is needed here.
"""

from __future__ import annotations

import ctypes
import json
import sys
from importlib import import_module
from typing import Any

F32 = 0  # ggml.h, enum ggml_type: keys and values are not rounded
NO_FLASH = 0  # llama.h, enum llama_flash_attn_type


def main() -> None:
    asked = json.load(sys.stdin)
    c = import_module("llama_cpp.llama_cpp")
    c.llama_backend_init()
    model = c.llama_model_load_from_file(asked["model"].encode(), c.llama_model_default_params())
    if not model:
        sys.exit("it could not load the model")
    vocab = c.llama_model_get_vocab(model)
    if asked["rows"]:
        _compute(c, model, asked)
    answer = {
        "version": import_module("llama_cpp").__version__,
        "system": c.llama_print_system_info().decode().strip(" |"),
        "words": c.llama_vocab_n_tokens(vocab),
        "texts": [_encode(c, vocab, text) for text in asked["texts"]],
    }
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


def _compute(c: Any, model: Any, asked: dict[str, Any]) -> None:
    """All logits (t, v) of each row, to the file that is named for it."""
    longest = max(map(len, asked["rows"]))
    params = c.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = longest
    params.n_threads = params.n_threads_batch = asked["threads"]
    params.type_k = params.type_v = F32
    params.flash_attn_type = NO_FLASH
    context = c.llama_init_from_model(model, params)
    if not context:
        sys.exit("it could not make a context")
    if asked["adapter"]:
        adapter = c.llama_adapter_lora_init(model, asked["adapter"].encode())
        if (
            not adapter
        ):  # a NULL is not None: llama-cpp-python's own check lets it pass, and the next step crashes
            sys.exit("it could not load the adapter")
        one = (c.llama_adapter_lora_p_ctypes * 1)(adapter)
        c.llama_set_adapters_lora(context, one, 1, (ctypes.c_float * 1)(asked["scale"]))
    words = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
    batch = c.llama_batch_init(longest, 0, 1)
    for ids, out in zip(asked["rows"], asked["out"], strict=True):
        c.llama_memory_clear(c.llama_get_memory(context), True)
        _fill(batch, ids)
        if c.llama_decode(context, batch) != 0:
            sys.exit("it gave up on a row")
        with open(out, "wb") as file:
            file.write(ctypes.string_at(c.llama_get_logits(context), 4 * len(ids) * words))


def _fill(batch: Any, ids: list[int]) -> None:
    """One row from position 0, all of whose logits are wanted."""
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, True
        batch.seq_id[i][0] = 0


def _encode(c: Any, vocab: Any, text: str) -> list[int]:
    """As llama.cpp begins a document: with its start token, and no special token in the text itself."""
    raw = text.encode()
    room = (c.llama_token * (len(raw) + 2))()
    count = c.llama_tokenize(vocab, raw, len(raw), room, len(room), True, False)
    return list(room[:count])


if __name__ == "__main__":
    main()
