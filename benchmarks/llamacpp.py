"""llama.cpp as a peer of benchmarks/generate.py: the base as q8_0, and the adapters beside it, as GGUF.

    python benchmarks/llamacpp.py FOLDER      with base/ and each-0/ ... each-7/ in it

Two threads, the most likely token each time, logits of the last token only.
Flash attention and a float16 cache are its default and its fastest (measured).
It repacks q8_0 for ARM and for AMX, not for AVX512-VNNI, which its plain
products use. An adapter is loaded once and set before its request. llama.cpp
batches rows of the base or of one adapter, but not rows of several, so eight
styles are written one after the other.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NEW, MANY, THREADS = 64, 8, 2
NEVER, ALWAYS = 0, 1  # llama.h, enum llama_flash_attn_type
F32, F16 = 0, 1  # ggml.h, enum ggml_type


def prepare(folder: Path) -> None:
    """Write base-q8_0.gguf, and each-N.gguf for every adapter folder each-N."""
    from adapterkit.exporting.gguf import write_adapter, write_model
    from adapterkit.generation.load import read_tensors
    from adapterkit.model.base import locate
    from adapterkit.registry.strict import read_lora

    base = locate(str(folder / "base"))
    words = base.folder
    if not (words / "tokenizer.json").is_file():
        words = _words(folder / "words", base.config["vocab_size"])
    write_model(folder / "base-q8_0.gguf", base.config, read_tensors(base.weights), words, "q8_0")
    for i in range(MANY):
        if (folder / f"each-{i}").is_dir():
            files = read_lora(folder / f"each-{i}", base.dims, f"each-{i}")
            write_adapter(folder / f"each-{i}.gguf", files)


def _words(folder: Path, size: int) -> Path:
    """Some tokens for a base that has none: llama.cpp wants them, and nothing here is text."""
    from adapterkit.model.tokenizer import BYTE_OF, END

    pairs = [(a, b) for a in BYTE_OF for b in BYTE_OF][: size - len(BYTE_OF) - 1]
    tokens = [*BYTE_OF, *map("".join, pairs), END]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in pairs) + "\n")
    return folder


class Llama:
    """The model and its adapters, loaded once; needs llama-cpp-python.

    Args:
        folder: see ``prepare``.
        length: tokens of a prompt and what is written.
    """

    def __init__(self, folder: Path, *, length: int = 96, flash: int = ALWAYS, cache: int = F16) -> None:
        import llama_cpp.llama_cpp as c  # type: ignore[import-not-found]

        self._c = c
        self._quiet = c.llama_log_callback(lambda *_: None)  # kept: llama.cpp holds only its address
        c.llama_log_set(self._quiet, None)
        c.llama_backend_init()
        self._model = c.llama_model_load_from_file(
            str(folder / "base-q8_0.gguf").encode(), c.llama_model_default_params()
        )
        assert self._model, "llama.cpp could not load the base"
        self.adapters: list[Any] = []
        while (path := folder / f"each-{len(self.adapters)}.gguf").is_file():
            loaded = c.llama_adapter_lora_init(self._model, str(path).encode())
            assert loaded, f"llama.cpp could not load {path.name}"
            self.adapters.append((c.llama_adapter_lora_p_ctypes * 1)(loaded))
        self._full = (ctypes.c_float * 1)(1.0)
        self._words = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self._model))
        self._one = self._context(1, length, flash, cache)
        self._many = self._context(MANY, length, flash, cache)
        self._batch = c.llama_batch_init(MANY * length, 0, 1)

    @property
    def system(self) -> str:
        """What llama.cpp says of the CPU and of itself: AVX512_VNNI, REPACK."""
        return str(self._c.llama_print_system_info().decode())

    def one(self, ids: Sequence[int], adapter: int | None = None, new: int = NEW) -> list[int]:
        """Write so many tokens after a prompt."""
        if adapter is None:
            self._c.llama_set_adapters_lora(self._one, None, 0, None)
        else:
            self._c.llama_set_adapters_lora(self._one, self.adapters[adapter], 1, self._full)
        return self._write(self._one, [ids], new)[0]

    def styles(self, rows: Sequence[Sequence[int]], new: int = NEW) -> list[list[int]]:
        """Each row in its own adapter, one after the other."""
        return [self.one(ids, i % len(self.adapters), new) for i, ids in enumerate(rows)]

    def eight(self, rows: Sequence[Sequence[int]], adapter: int | None = None, new: int = NEW) -> list[list[int]]:  # fmt: skip
        """Up to eight rows in one batch, all by the base or by one adapter."""
        if adapter is None:
            self._c.llama_set_adapters_lora(self._many, None, 0, None)
        else:
            self._c.llama_set_adapters_lora(self._many, self.adapters[adapter], 1, self._full)
        return self._write(self._many, rows, new)

    def _context(self, rows: int, length: int, flash: int, cache: int) -> Any:
        params = self._c.llama_context_default_params()
        # A row's room is rounded up to 256 positions, of which only what is used is read.
        params.n_ctx, params.n_seq_max = 256 * rows, rows
        params.n_batch = params.n_ubatch = max(512, rows * length)
        params.n_threads = params.n_threads_batch = THREADS
        params.flash_attn_type, params.type_k, params.type_v, params.no_perf = flash, cache, cache, True
        context = self._c.llama_init_from_model(self._model, params)
        assert context, "llama.cpp made no context"
        return context

    def _write(self, context: Any, rows: Sequence[Sequence[int]], new: int) -> list[list[int]]:
        c, batch = self._c, self._batch
        c.llama_memory_clear(c.llama_get_memory(context), False)
        at = 0
        last = []
        for row, ids in enumerate(rows):
            for position, token in enumerate(ids):
                self._put(at, token, position, row, position == len(ids) - 1)
                at += 1
            last.append(at - 1)
        batch.n_tokens = at
        written: list[list[int]] = [[] for _ in rows]
        for step in range(new):
            if step:
                for row, ids in enumerate(rows):
                    self._put(row, written[row][-1], len(ids) + step - 1, row, True)
                batch.n_tokens, last = len(rows), list(range(len(rows)))
            assert c.llama_decode(context, batch) == 0
            for row, place in enumerate(last):
                logits = np.ctypeslib.as_array(c.llama_get_logits_ith(context, place), (self._words,))
                written[row].append(int(logits.argmax()))
        return written

    def _put(self, at: int, token: int, position: int, row: int, wanted: bool) -> None:
        b = self._batch
        b.token[at], b.pos[at], b.n_seq_id[at], b.logits[at] = token, position, 1, wanted
        b.seq_id[at][0] = row


def speed(write: Callable[[], list[list[int]]], rounds: int = 5) -> float:
    """New tokens a second, of the fastest round."""
    best = 0.0
    for _ in range(rounds):
        begun = time.perf_counter()
        made = write()
        best = max(best, sum(map(len, made)) / (time.perf_counter() - begun))
    return best


def main() -> None:
    folder = Path(sys.argv[1])
    prepare(folder)
    rows = np.random.default_rng(1).integers(0, 50_000, (MANY, 32)).tolist()
    for flash, cache in ((ALWAYS, F16), (NEVER, F16), (NEVER, F32)):
        model = Llama(folder, flash=flash, cache=cache)
        for what, write in _cases(model, rows).items():
            kind = f"flash {'on' if flash else 'off'}, cache {'f16' if cache else 'f32'}"
            print(f"{kind}  {what:<26} {speed(write):7.0f} tokens/s", flush=True)
    print(model.system)


def _cases(model: Llama, rows: list[list[int]]) -> dict[str, Callable[[], list[list[int]]]]:
    return {
        "one row of the base": lambda: [model.one(rows[0])],
        "one row of an adapter": lambda: [model.one(rows[0], 0)],
        "eight styles, in turn": lambda: model.styles(rows),
        "eight rows of the base": lambda: model.eight(rows),
        "eight rows of an adapter": lambda: model.eight(rows, 0),
    }


if __name__ == "__main__":
    main()
