"""GGUF files for llama.cpp: a GPT-2 model, or a LoRA adapter for one.

GPT-2 stores its matrices as (in, out) and llama.cpp wants (out, in), so those of
a model are transposed. PEFT's A (r, in) and B (out, r) are in that order already
and stay as they are: llama.cpp's own converter transposes them again, which
crashes it or gives another adapter. The scale is multiplied into B, and alpha is
the rank, so that llama.cpp's alpha / rank is 1 for any alpha and for rsLoRA.

Norms, biases and positions are float32 in every kind, as llama.cpp keeps them;
the head is the embeddings and is not stored twice. The same tensors give the
same bytes. One tensor at a time is in memory beside those that are given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapterkit.errors import Unsupported
from adapterkit.exporting import vocabulary
from adapterkit.exporting.whole import whole
from adapterkit.generation.gpt2 import TARGETS
from adapterkit.generation.pages import DTYPES
from adapterkit.registry.gpt2 import shapes
from adapterkit.registry.strict import LoraFiles

Kind = Literal["f32", "f16", "q8_0"]
KINDS: tuple[Kind, ...] = ("f32", "f16", "q8_0")
BLOCK = 32  # numbers that share a scale in q8_0
LARGEST = {"f32": float(np.finfo(np.float32).max), "f16": 65504.0, "q8_0": 127 * 65504.0}
TOP = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
PARTS = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
LORA = re.compile(r"base_model\.model\.transformer\.(h\.\d+\.[a-z_.]+)\.lora_([AB])\.weight")


class Piece(NamedTuple):
    """A tensor of the file, made when it is its turn."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    make: Callable[[], Tensor]  # float32, in the file's order


def write_model(
    target: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    tokenizer: Path,
    kind: Kind = "f16",
    *,
    name: str = "GPT-2",
) -> None:
    """A GPT-2 that llama.cpp runs alone; a file of that name is replaced.

    Args:
        config: the base's config with defaults filled in.
        tensors: canonical names (``h.0.attn.c_attn.weight``) to tensors in any float format.
        tokenizer: the folder of the tokenizer.
        kind: of the matrices. In q8_0 each 32 numbers of a row share a scale; rows
            of another length are f16.

    Raises:
        Unsupported: no gguf package, another architecture or tokenizer than llama.cpp's
            gpt2, or numbers that are too large for the kind.
    """
    gguf = library()
    _check_config(config)
    words = vocabulary.read(tokenizer, config["vocab_size"])
    sizes = shapes(config)

    def describe(writer: Any) -> None:
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_name(name)
        writer.add_file_type(getattr(gguf.LlamaFileType, "ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"))  # fmt: skip
        if kind == "q8_0":
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_block_count(config["n_layer"])
        writer.add_context_length(config["n_positions"])
        writer.add_embedding_length(config["n_embd"])
        writer.add_feed_forward_length(sizes["h.0.mlp.c_fc.bias"][0])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(float(config["layer_norm_epsilon"]))
        writer.add_vocab_size(config["vocab_size"])
        _describe_words(writer, words)

    _write(target, describe, [_piece(each, sizes[each], tensors, kind) for each in sizes])


def write_adapter(target: Path, files: LoraFiles, *, name: str = "LoRA", base: str = "") -> None:
    """A LoRA that llama.cpp adds to a GGUF of its base, in float32; a file of that name is replaced.

    Args:
        files: as ``adapterkit.registry.strict`` reads them, so a plain LoRA of one rank.
        base: what the base is called, for whoever reads the file.

    Raises:
        Unsupported: no gguf package, or numbers that are too large once multiplied by the scale.
    """
    gguf = library()

    def describe(writer: Any) -> None:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_name(name)
        if base:
            writer.add_base_model_count(1)
            writer.add_base_model_name(0, base)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(files.r))

    _write(target, describe, [_half(each, files) for each in sorted(files.tensors)])


def gguf_name(name: str) -> str:
    """llama.cpp's name of a canonical one: ``h.0.ln_1.bias`` is ``blk.0.attn_norm.bias``."""
    module, _, last = name.rpartition(".")
    if module in TOP:
        return f"{TOP[module]}.{last}"
    _, layer, part = module.split(".", 2)
    return f"blk.{layer}.{PARTS[part]}.{last}"


def is_transposed(name: str) -> bool:
    """Whether a canonical tensor lies in the file the other way round."""
    return name.endswith(tuple(f".{target}.weight" for target in TARGETS))


def library() -> Any:
    """The gguf package.

    Raises:
        Unsupported: it is not installed (code ``extra``).
    """
    try:
        return import_module("gguf")
    except ImportError as e:
        raise Unsupported(
            f"GGUF files are written with the gguf package, which can't be imported ({e}).",
            hint='pip install "adapterkit[gguf]"',
            code="extra",
        ) from e


# --- what goes into the file ---------------------------------------------------------


def _check_config(config: Mapping[str, Any]) -> None:
    if config["activation_function"] not in ("gelu_new", "gelu_pytorch_tanh"):
        raise Unsupported(
            f"llama.cpp computes GPT-2 with gelu_new, not with {config['activation_function']!r}.",
            hint="use a plain GPT-2",
            code="architecture",
        )
    if config["scale_attn_by_inverse_layer_idx"] or not config["scale_attn_weights"]:
        raise Unsupported(
            "this base scales attention in a way that llama.cpp's GPT-2 does not.",
            hint="use a plain GPT-2",
            code="architecture",
        )


def _describe_words(writer: Any, words: vocabulary.Vocabulary) -> None:
    """A document begins with its end token here, so llama.cpp is told to add it."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.kinds)
    writer.add_token_merges(words.merges)
    writer.add_bos_token_id(words.end)
    writer.add_eos_token_id(words.end)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def _piece(name: str, shape: tuple[int, ...], tensors: Mapping[str, Tensor], kind: Kind) -> Piece:
    turned = is_transposed(name)
    rows = shape[::-1] if turned else shape
    if len(shape) == 1 or name == "wpe.weight":
        kind = "f32"
    elif kind == "q8_0" and rows[-1] % BLOCK:
        kind = "f16"  # as llama.cpp's own quantiser does

    def make() -> Tensor:
        tensor = tensors[name].detach().to("cpu", torch.float32)
        return (tensor.T if turned else tensor).contiguous()

    return Piece(gguf_name(name), rows, kind, make)


def _half(name: str, files: LoraFiles) -> Piece:
    """A or B of one module."""
    dtype, shape, data = files.tensors[name]
    found = LORA.fullmatch(name)
    assert found is not None  # read_lora lets no other name pass
    module, side = found.groups()

    def make() -> Tensor:
        tensor = torch.frombuffer(bytearray(data), dtype=DTYPES[dtype]).view(shape).float()
        return tensor if side == "A" else tensor * files.scale

    return Piece(f"{gguf_name(f'{module}.weight')}.lora_{side.lower()}", shape, "f32", make)


# --- the file ------------------------------------------------------------------------


def _write(target: Path, describe: Callable[[Any], None], pieces: list[Piece]) -> None:
    gguf = library()
    with whole(target) as aside:
        writer = gguf.GGUFWriter(aside, "gpt2")
        try:
            describe(writer)
            for piece in pieces:
                writer.add_tensor_info(piece.name, *_layout(gguf, piece))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for piece in pieces:
                writer.write_tensor_data(_encode(gguf, piece))
        finally:
            writer.close()


def _layout(gguf: Any, piece: Piece) -> tuple[Any, ...]:
    """Shape, numpy type, bytes and GGML type, as the writer asks for them before it has the tensor."""
    kind = gguf.GGMLQuantizationType[piece.kind.upper()]
    if piece.kind == "q8_0":
        stored = gguf.quant_shape_to_byte_shape(piece.shape, kind)
        return stored, np.dtype(np.uint8), int(np.prod(stored)), kind
    dtype = np.dtype(np.float32 if piece.kind == "f32" else np.float16)
    return piece.shape, dtype, int(np.prod(piece.shape)) * dtype.itemsize, kind


def _encode(gguf: Any, piece: Piece) -> NDArray[Any]:
    made = piece.make()
    low, high = made.aminmax()
    if not max(-low, high) <= LARGEST[piece.kind]:  # nan is no number up to it either
        raise Unsupported(
            f"the numbers of {piece.name} are too large for {piece.kind}, or not finite.",
            hint="write the model as f32" if piece.kind != "f32" else "train it again with a smaller lora.alpha",
            code="overflow",
            details={"tensor": piece.name},
        )  # fmt: skip
    encoded: NDArray[Any] = gguf.quants.quantize(made.numpy(), gguf.GGMLQuantizationType[piece.kind.upper()])
    return encoded
