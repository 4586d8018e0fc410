"""Adapters made to do harm: each in a folder of its own, with the code it must be refused with.

They are mutilations of one small good adapter for a base of ``DIMS``. ``corpus``
gives folders as a stranger would send them; ``versions`` puts mutilated versions
into a registry, behind manifests that are sealed as they should be.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapterkit.files import canonical_json, sha256_file
from adapterkit.registry.strict import CONFIG, WEIGHTS, Dims, tensor_name
from adapterkit.registry.version import MANIFEST, seal
from tests.versions import LAYERS, WIDTH, adapter_config, manifest_of, tensors
from tests.versions import _metrics as metrics

DIMS = Dims(LAYERS, WIDTH, 4 * WIDTH)
FIRST = tensor_name(0, "attn.c_attn", "A")  # (4, 32)
LAST = tensor_name(1, "attn.c_proj", "B")
EVIL = "(a+)+(a|a)*(.*a){25}$"  # a pattern that takes a lifetime on aaaa...b
CANARY = "canary"  # made in the root of the corpus when anything is run

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


@dataclass(frozen=True)
class Case:
    """One adapter that must be refused, with the code of the error."""

    name: str
    folder: Path
    code: str
    files: bool = True  # holds plain files only, so that it can be put into a registry


@dataclass(frozen=True)
class Draft:
    """A case before it is written: whatever is None is as in the good adapter."""

    name: str
    code: str
    config: bytes | None = None
    weights: bytes | None = None
    after: Callable[[Path], object] | None = None


class Run:
    """Makes the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


def corpus(root: Path) -> list[Case]:
    """Write every hostile adapter below ``root``, each in a folder of its own."""
    cases = []
    for i, draft in enumerate(_drafts(root)):
        folder = root / f"{i:03d}"
        good(folder)
        if draft.config is not None:
            (folder / CONFIG).write_bytes(draft.config)
        if draft.weights is not None:
            (folder / WEIGHTS).write_bytes(draft.weights)
        if draft.after:
            try:
                draft.after(folder)
            except PermissionError:  # a device needs the rights of root to be made
                shutil.rmtree(folder)
                continue
        cases.append(Case(draft.name, folder, draft.code, _is_publishable(folder)))
    return cases


def _is_publishable(folder: Path) -> bool:
    """Whether it holds an adapter's two files, and they are files of a size that can be copied."""
    states = {p.name: p.lstat() for p in folder.iterdir()}
    plain = all(stat.S_ISREG(s.st_mode) and s.st_size < 1 << 24 for s in states.values())
    return plain and states.keys() == {CONFIG, WEIGHTS}


def good(folder: Path) -> Path:
    """The adapter that is fine."""
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps(adapter_config()))
    (folder / WEIGHTS).write_bytes(packed(tensors(0)))
    return folder


def packed(held: Tensors) -> bytes:
    """A safetensors file, as the library writes it."""
    table, data = {}, b""
    for name, (dtype, shape, raw) in held.items():
        table[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    return framed(json.dumps(table).encode(), data)


def framed(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def _drafts(root: Path) -> Iterator[Draft]:
    yield from _lengths()
    yield from _headers()
    yield from _names()
    yield from _cut_and_longer(root)
    yield from _tensors()
    yield from _numbers()
    yield from _config_text()
    yield from _config_values()
    yield from _files(root)


# --- the header of the weights ---


def _lengths() -> Iterator[Draft]:
    whole = packed(tensors(0))
    for what, raw in {
        "no bytes at all": b"",
        "less than a length": b"\2\0\0",
        "a length and no more": struct.pack("<Q", 2),
        "a length of zero": struct.pack("<Q", 0) + whole[8:],
        "a length of one": struct.pack("<Q", 1) + whole[8:],
        "a length past the end": struct.pack("<Q", len(whole)) + whole[8:],
        "a length of 2 to the 63": struct.pack("<Q", 1 << 63) + whole[8:],
        "a length of all ones": b"\xff" * 8 + whole[8:],
        "a length in big endian": whole[:8][::-1] + whole[8:],
        "a header over the cap": framed(b"{}".ljust((1 << 20) + 8)),
    }.items():
        yield Draft(what, "header-length", weights=raw)


def _headers() -> Iterator[Draft]:
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    texts: dict[str, tuple[str, bytes]] = {
        "a list": ("header", b"[1, 2]"),
        "null": ("header", b"null"),
        "a word": ("header", b'"LORA"'),
        "blanks before": ("header", b"  {}    "),
        "UTF-16": ("header", json.dumps({"a": 1}).encode("utf-16")),
        "a byte order mark": ("header", b"\xef\xbb\xbf{}  "),
        "a pickle": ("header", pickle.dumps({"a": 1})),
        "cut JSON": ("header-json", b'{"a": {"dtype"'),
        "two tables": ("header-json", b"{}{}"),
        "a comment": ("header-json", b"{/* */} "),
        "a raw NUL": ("header-json", b'{"a\0":1}'),
        "Latin-1": ("header-encoding", '{"ä": 1}'.encode("latin-1")),
        "half a surrogate pair": ("header-encoding", rb'{"\ud800": 1}'),
        "an overlong dot": ("header-encoding", b'{"\xc0\xae": 1}'),
        "lists without end": ("header-nesting", b'{"a":' + b"[" * 100_000),
        "tables without end": ("header-nesting", b'{"a":' * 100_000),
        "a tensor twice": ("header-duplicate-key", f'{{"a":{entry},"a":{entry}}}'.encode()),
        "a type twice": ("header-duplicate-key", f'{{"a":{entry[:-1]},"dtype":"F16"}}}}'.encode()),
        "metadata twice": ("header-duplicate-key", b'{"__metadata__":{},"__metadata__":{"a":"b"}}'),
        "a key twice in metadata": ("header-duplicate-key", b'{"__metadata__":{"a":"b","a":"c"}}'),
        "NaN": ("header-number", entry.replace("[1]", "[NaN]").join(['{"a":', "}"]).encode()),
        "Infinity": ("header-number", entry.replace("[1]", "[Infinity]").join(['{"a":', "}"]).encode()),
        "1e999": ("header-number", entry.replace("[1]", "[1e999]").join(['{"a":', "}"]).encode()),
        "5,000 digits": ("header-number", b'{"a":' + b"9" * 5000 + b"}"),
        "a million digits": ("header-number", b'{"a":' + b"9" * 1_000_000 + b"}"),
        "30 digits": ("header-number", b'{"a":' + b"9" * 30 + b"}"),
        "metadata of numbers": ("header-metadata", b'{"__metadata__":{"a":3}}'),
        "metadata that is a list": ("header-metadata", b'{"__metadata__":["pt"]}'),
        "metadata in metadata": ("header-metadata", b'{"__metadata__":{"a":{"b":"c"}}}'),
    }
    for what, (code, header) in texts.items():
        yield Draft(f"header: {what}", code, weights=framed(header, bytes(4)))
    table = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(5000)}
    yield Draft("header: too many tensors", "tensor-count", weights=framed(json.dumps(table).encode()))
    yield from _entries()


def _entries() -> Iterator[Draft]:
    def one(what: str, code: str, spec: object, data: bytes = bytes(4)) -> Draft:
        return Draft(
            f"tensor: {what}",
            code,
            weights=framed(json.dumps({"a": spec}, separators=(",", ":")).encode(), data),
        )

    whole = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    for what, spec in {
        "a number": 3,
        "a list": [],
        "nothing": None,
        "no place": {"dtype": "F32", "shape": [1]},
        "no type": {"shape": [1], "data_offsets": [0, 4]},
        "a key more": whole | {"file": "/etc/passwd"},
    }.items():
        yield one(what, "tensor-entry", spec)
    many = ((1 << 20) - 64) // 3
    yield one("a megabyte of lists", "tensor-entry", json.loads("[" + "[]," * (many - 1) + "[]]"))
    yield one("a megabyte of tables", "tensor-entry", json.loads("[" + "{}," * (many - 1) + "{}]"))
    for dtype in ("F31", "f32", ["F32"], None, 32, "F8_E4M3", "F32\0", "torch.float32", "O"):
        yield one(f"type {dtype!r}", "tensor-dtype", whole | {"dtype": dtype})
    for shape in ([-1, -1], [1.0], [True], "1", {"0": 1}, None, [[1]], ["1"], [1] * 60):
        yield one(f"shape {str(shape)[:20]}", "tensor-shape", whole | {"shape": shape})
    for offsets in ([0, 4, 4], [-4, 0], [0.0, 4.0], "04", [False, True], None, [0], {"begin": 0, "end": 4}):
        yield one(f"place {offsets}", "tensor-offsets", whole | {"data_offsets": offsets})
    for what, spec, data in (
        ("a gap before", whole | {"data_offsets": [4, 8]}, bytes(8)),
        ("begins after its end", whole | {"data_offsets": [4, 0]}, bytes(4)),
        ("more shape than bytes", whole | {"shape": [3]}, bytes(4)),
        ("less shape than bytes", whole | {"data_offsets": [0, 8]}, bytes(8)),
        ("a shape of 2 to the 64", whole | {"shape": [1 << 62, 4], "data_offsets": [0, 0]}, b""),
        ("a shape of a terabyte", whole | {"shape": [1 << 38]}, bytes(4)),
        ("a place of an exabyte", whole | {"shape": [1 << 58], "data_offsets": [0, 1 << 60]}, bytes(4)),
    ):
        code = "truncated" if what == "a place of an exabyte" else "tensor-layout"
        yield one(what, code, spec, data)
    for what, first, second in (
        ("overlapping", [0, 8], [4, 12]),
        ("the same place twice", [0, 8], [0, 8]),
        ("a gap between", [0, 4], [8, 12]),
    ):
        table = {
            n: {"dtype": "F32", "shape": [(o[1] - o[0]) // 4], "data_offsets": o}
            for n, o in (("a", first), ("b", second))
        }
        yield Draft(
            f"tensors: {what}", "tensor-layout", weights=framed(json.dumps(table).encode(), bytes(second[1]))
        )


def _names() -> Iterator[Draft]:
    for name in (
        "../a",
        "../../../../etc/passwd",
        "/etc/passwd",
        "..",
        "a/b",
        "C:\\x",
        "\\\\host\\share",
        "a\0b",
        "",
        "a\n",
        "a" * 300,
        "\u202ea",
        "ａ",
        "a b",
        "$(touch canary)",
        "`id`",
        "%2e%2e%2fa",
        ".hidden",
        "-rf",
        "\x1b[2Ja",
    ):
        yield Draft(
            f"name {name[:20]!r}", "tensor-name", weights=packed(tensors(0) | {name: ("F32", (1,), bytes(4))})
        )


def _cut_and_longer(root: Path) -> Iterator[Draft]:
    whole = packed(tensors(0))
    begin = 8 + struct.unpack("<Q", whole[:8])[0]
    for at in (1, 7, 8, 9, 100, begin // 2, begin - 1):
        yield Draft(f"cut in the header at {at}", "header-length", weights=whole[:at])
    for at in (begin, begin + 1, begin + 1000, len(whole) - 4, len(whole) - 1):
        yield Draft(f"cut in the data at {at - begin}", "truncated", weights=whole[:at])
    archive = b"PK\5\6" + bytes(18)  # an empty zip archive, which readers look for from the end
    for what, more in {
        "a byte": b"\0",
        "a zip archive": archive,
        "a pickle": pickle.dumps(Run(root / CANARY)),
        "another file": whole,
        "a megabyte": bytes(1 << 20),
    }.items():
        yield Draft(f"followed by {what}", "trailing-bytes", weights=whole + more)
    yield Draft("a zip archive first", "header-length", weights=b"PK\3\4" + whole)
    yield Draft("a script first", "header-length", weights=b"#!/bin/sh\ntouch canary\n" + whole)


# --- tensors that do not fit ---


def _tensors() -> Iterator[Draft]:
    def with_(**changes: tuple[int, ...]) -> bytes:
        return packed(tensors(0) | {n: ("F32", s, bytes(4 * math.prod(s))) for n, s in changes.items()})

    def without(is_left_out: Callable[[str], bool]) -> bytes:
        return packed({n: t for n, t in tensors(0).items() if not is_left_out(n)})

    yield Draft("no tensors", "missing-tensors", weights=framed(b"{}      "))
    yield Draft("one tensor missing", "missing-tensors", weights=without(lambda n: n == FIRST))
    yield Draft("all of B missing", "missing-tensors", weights=without(lambda n: "lora_B" in n))
    yield Draft("a layer missing", "missing-tensors", weights=without(lambda n: ".h.1." in n))
    yield Draft("a module missing", "missing-tensors", weights=without(lambda n: "c_proj" in n))
    block = "base_model.model.transformer.h"
    for name, shape in {
        "transformer.wte.weight": (400, 32),
        "base_model.model.transformer.wte.weight": (400, 32),
        "base_model.model.transformer.wpe.weight": (64, 32),
        "base_model.model.transformer.ln_f.weight": (32,),
        "base_model.model.transformer.ln_f.bias": (32,),
        "base_model.model.lm_head.weight": (400, 32),
        f"{block}.0.attn.c_attn.weight": (32, 96),
        f"{block}.0.attn.c_attn.base_layer.weight": (32, 96),
        f"{block}.0.ln_1.weight": (32,),
        f"{block}.0.attn.c_attn.lora_magnitude_vector": (96,),
        f"{block}.0.attn.c_attn.lora_A.bias": (4,),
        f"{block}.2.attn.c_attn.lora_A.weight": (4, 32),
        f"{block}.-1.attn.c_attn.lora_A.weight": (4, 32),
        f"{block}.00.attn.c_attn.lora_A.weight": (4, 32),
        f"{block}.0.mlp.c_fc.lora_A.weight": (4, 32),
        "base_model.model.transformer.wte.lora_embedding_A": (4, 400),
        "base_model.model.score.weight": (2, 32),
        "__class__": (1,),
    }.items():
        yield Draft(f"holds {name}", "extra-tensors", weights=with_(**{name: shape}))
    for what, old, new in (
        ("another prefix", "base_model.model.", ""),
        ("an adapter's name inside", "lora_A.weight", "lora_A.default.weight"),
        ("upper case", "lora_B", "LORA_B"),
        ("another model", "transformer.h", "model.layers"),
    ):
        renamed = {n.replace(old, new): t for n, t in tensors(0).items()}
        yield Draft(f"names with {what}", "other-tensors", weights=packed(renamed))
    for shape in ((4, 33), (32, 4), (3, 32), (8, 32), (128,), (1, 4, 32), (4, 0), (4, 32, 1), ()):
        yield Draft(f"a shape of {shape}", "wrong-shape", weights=with_(**{FIRST: shape}))
    yield Draft("no columns, a terabyte of rows", "wrong-shape", weights=with_(**{FIRST: (0, 1 << 38)}))


def _numbers() -> Iterator[Draft]:
    bits = {
        "F32": ("<u4", {"nan": 0x7FC00000, "a loud nan": 0x7F800001, "inf": 0x7F800000, "-inf": 0xFF800000}),
        "F16": ("<u2", {"nan": 0x7E00, "a loud nan": 0x7C01, "inf": 0x7C00, "-inf": 0xFC00}),
        "BF16": ("<u2", {"nan": 0x7FC0, "a loud nan": 0x7F81, "inf": 0x7F80, "-inf": 0xFF80}),
    }
    for dtype, (kind, words) in bits.items():
        for word, pattern in words.items():
            for name, at in ((FIRST, 0), (LAST, -1)):
                held = {
                    n: (dtype, s, bytes(math.prod(s) * np.dtype(kind).itemsize))
                    for n, (_, s, _) in tensors(0).items()
                }
                values = np.zeros(math.prod(held[name][1]), kind)
                values[at] = pattern
                held[name] = (dtype, held[name][1], values.tobytes())
                yield Draft(f"{word} in {dtype} at {at}", "not-finite", weights=packed(held))
    for dtype, size in {"F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}.items():
        held = tensors(0) | {FIRST: (dtype, (4, 32), bytes(128 * size))}
        yield Draft(f"numbers of type {dtype}", "dtype", weights=packed(held))


# --- the config ---


def _config_text() -> Iterator[Draft]:
    fine = json.dumps(adapter_config())
    texts: dict[str, tuple[str, bytes]] = {
        "no bytes": ("config-json", b""),
        "cut": ("config-json", fine.encode()[:40]),
        "two tables": ("config-json", (fine + fine).encode()),
        "single quotes": ("config-json", str(adapter_config()).encode()),
        "YAML that makes an object": ("config-json", b"!!python/object/apply:os.system ['touch canary']"),
        "a pickle": ("config-encoding", pickle.dumps(adapter_config())),
        "UTF-16": ("config-encoding", fine.encode("utf-16")),
        "half a surrogate pair": ("config-encoding", fine.replace('"tiny"', r'"\ud800"').encode()),
        "a byte order mark": ("config-json", b"\xef\xbb\xbf" + fine.encode()),
        "a list": ("config-table", b"[]"),
        "a number": ("config-table", b"3"),
        "null": ("config-table", b"null"),
        "an empty table": ("config-lacking", b"{}"),
        "nested deeply": ("config-nesting", b'{"a":' * 12_000),
        "r twice": ("config-duplicate-key", fine.replace('"r": 4', '"r": 4, "r": 4').encode()),
        "targets twice": ("config-duplicate-key", (fine[:-1] + ', "target_modules": ".*"}').encode()),
        "a hidden key twice": ("config-duplicate-key", (fine[:-1] + r', "\u0072": 4}').encode()),
        "NaN": ("config-number", fine.replace("0.05", "NaN").encode()),
        "alpha of infinity": (
            "config-number",
            fine.replace('"lora_alpha": 8', '"lora_alpha": Infinity').encode(),
        ),
        "alpha of 1e999": ("config-number", fine.replace('"lora_alpha": 8', '"lora_alpha": 1e999').encode()),
        "r of 5,000 digits": ("config-number", fine.replace('"r": 4', '"r": ' + "9" * 5000).encode()),
        "too long": ("too-large", fine.encode() + b" " * (64 << 10)),
    }
    for what, (code, raw) in texts.items():
        yield Draft(f"config: {what}", code, config=raw)


def _config_values() -> Iterator[Draft]:
    def set_(code: str, **changes: Any) -> Draft:
        told = ", ".join(f"{k} {str(v)[:30]}" for k, v in changes.items())
        return Draft(f"config: {told}", code, config=json.dumps(adapter_config() | changes).encode())

    for kind in ("IA3", "PREFIX_TUNING", "lora", None, ["LORA"], {"a": 1}):
        yield set_("peft-type", peft_type=kind)
    for task in ("SEQ_CLS", "TOKEN_CLS", None, 1):
        yield set_("task-type", task_type=task)
    for bias in ("all", "lora_only", True):
        yield set_("bias", bias=bias)
    for r in (0, -1, 257, 100_000, 10**9, 10**19, 4.0, True, "4", None, [4]):
        yield set_("rank", r=r)
    yield set_("wrong-shape", r=256)
    for alpha in (1e7, -1e300, 10**19, "8", None, True, [8], {"a": 8}):
        yield set_("alpha", lora_alpha=alpha)
    switches: tuple[Any, ...] = ("yes", 2, [], {"on": True})
    for switch in switches:
        yield set_("rslora", use_rslora=switch)
    for targets in (
        ".*c_attn",
        EVIL,
        "all-linear",
        "attn.c_attn",
        [EVIL],
        [".*"],
        ["c_proj"],
        ["wte"],
        ["lm_head"],
        ["../../etc/passwd"],
        ["attn.c_attn", "attn.c_attn"],
        [["attn.c_attn"]],
        [True],
        ["a"] * 10_000,
        [],
        None,
        {"attn.c_attn": 1},
        3,
    ):
        yield set_("target-modules", target_modules=targets)
    for start in ("pissa", "pissa_niter_16", "olora", "loftq", "corda", "eva", 1, {"a": 1}, "os.system"):
        yield set_("initialisation", init_lora_weights=start)
    yield from _config_keys(set_)


def _config_keys(set_: Callable[..., Draft]) -> Iterator[Draft]:
    code = {"base_model_class": "system", "parent_library": "os"}
    yield set_("names-code", auto_mapping=code)
    yield set_("names-code", auto_mapping="os.system")
    yield set_("names-code", megatron_core="os")
    yield set_("dora", use_dora=True)
    yield set_("modules-to-save", modules_to_save=["wte"])
    yield set_("modules-to-save", modules_to_save=["lm_head", "ln_f"])
    yield set_("modules-to-save", trainable_token_indices=[1, 2])
    for key in ("rank_pattern", "alpha_pattern"):
        yield set_("pattern", **{key: {EVIL: 4}})
        yield set_("pattern", **{key: {"attn.c_attn": 10**9}})
    yield set_("pattern", layers_pattern=EVIL, layers_to_transform=None)
    for key, value in {
        "layers_to_transform": [0],
        "layer_replication": [[0, 2], [0, 2]],
        "exclude_modules": EVIL,
        "target_parameters": ["wte.weight"],
        "lora_bias": True,
        "use_qalora": True,
        "alora_invocation_tokens": [1],
        "loftq_config": {"loftq_bits": 4},
        "corda_config": {"cache_file": "/etc/passwd"},
        "eva_config": {"rho": 2.0},
        "megatron_config": {"a": 1},
        "trust_remote_code": True,
        "attn_implementation": "stranger/kernels",
        "_attn_implementation_internal": "stranger/kernels",
        "tokenizer_kwargs": {"trust_remote_code": True},
        "__class__": "os.system",
        "\x1b[2J\x1b[1;31mOK": 1,
        "a_key_of_the_future": 1,
    }.items():
        yield set_("config-key", **{key: value})
    for key, value in {
        "lora_dropout": 2,
        "base_model_name_or_path": ["gpt2"],
        "revision": {"a": 1},
        "peft_version": 3,
        "inference_mode": "yes",
        "fan_in_fan_out": "True",
        "qalora_group_size": "16",
    }.items():
        yield set_("config-value", **{key: value})


# --- files that are not what they seem ---


def _files(root: Path) -> Iterator[Draft]:
    outside = root.parent / f"{root.name}-outside"

    def swap(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
        def after(folder: Path) -> None:
            path = folder / name
            if not outside.exists():
                good(outside)
            path.unlink()
            make(path)

        return after

    def link(to: str | Path) -> Callable[[Path], object]:
        return lambda path: path.symlink_to(to)

    def pipe(path: Path) -> None:
        other = path.parent.parent / f"{path.parent.name}-{path.name}.pipe"
        os.mkfifo(other)
        os.link(other, path)

    def sparse(path: Path) -> None:
        path.write_bytes(packed(tensors(0)))
        os.truncate(path, 1 << 40)

    for name in (CONFIG, WEIGHTS):
        yield Draft(f"no {name}", "missing-file", after=swap(name, lambda path: None))
        for what, to in (
            ("the same file outside", outside / name),
            ("a file outside, relative", f"../../{outside.name}/{name}"),
            ("/etc/passwd", "/etc/passwd"),
            ("/dev/zero", "/dev/zero"),
            ("nothing", outside / "gone"),
            ("itself", name),
        ):
            yield Draft(f"{name} a link to {what}", "link", after=swap(name, link(to)))
        yield Draft(f"{name} a pipe", "not-a-file", after=swap(name, os.mkfifo))
        yield Draft(f"{name} a hard link to a pipe", "not-a-file", after=swap(name, pipe))
        yield Draft(f"{name} a folder", "not-a-file", after=swap(name, Path.mkdir))
        yield Draft(f"{name} a socket", "not-a-file", after=swap(name, _socket))
        yield Draft(f"{name} a device", "not-a-file", after=swap(name, _zero))
    yield Draft("weights of a terabyte", "trailing-bytes", after=swap(WEIGHTS, sparse))
    yield Draft(
        "a config of a terabyte", "too-large", after=lambda folder: os.truncate(folder / CONFIG, 1 << 40)
    )
    for name in ("adapter_model.bin", "pytorch_model.bin"):
        yield Draft(f"{name} instead", "pickle", after=_pickled(name, root / CANARY))
    bomb = pickle.dumps(Run(root / CANARY))
    yield Draft("a pickle under the name of safetensors", "header-length", weights=bomb)
    yield Draft("a pickle framed as a header", "header", weights=framed(bomb, bytes(16)))


def _socket(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)  # a socket's path may have about 100 characters
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def _zero(path: Path) -> None:
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))


def _pickled(name: str, canary: Path) -> Callable[[Path], object]:
    def after(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps(Run(canary)))

    return after


# --- versions in a registry ---


def versions(root: Path, fingerprints: dict[str, str]) -> list[Case]:
    """Put versions into the registry ``root`` that no publishing makes, each sealed as if it were right.

    Args:
        fingerprints: of the base they say they were trained on.
    """
    cases = []
    outside = root.parent / "elsewhere"
    for i, (what, damage) in enumerate(_damages(outside).items()):
        folder = root / f"v{i:02d}" / "1"
        good(folder)
        commit(folder, fingerprints, damage)
        is_read = what in (f"{CONFIG} a link", f"{WEIGHTS} a link")  # opened before it is hashed
        cases.append(Case(what, folder, "link" if is_read else "damaged"))
    return cases


def publish(case: Case, root: Path, fingerprints: dict[str, str]) -> Path:
    """Put a case's files into the registry ``root`` as version 1 of a name of its own; its manifest tells of them truly."""
    folder = root / f"c{case.folder.name}" / "1"
    shutil.copytree(case.folder, folder)
    commit(folder, fingerprints)
    return folder


def commit(
    folder: Path, fingerprints: dict[str, str], damage: Callable[[Path, dict[str, Any]], object] | None = None
) -> None:
    """Seal a version folder without the care of publishing, which would refuse or mend it."""
    (folder / "README.md").write_text("# a version\n")
    manifest = manifest_of(folder.parent.name, "lora", "tiny", fingerprints, metrics(3.0, 3.5, "44" * 32))
    made = {"schema": 1, "min_reader": 1, "version": 1, "created": "2026-01-01T00:00:00+00:00"}
    manifest |= {**made, "content": sha256_file(folder / CONFIG), "files": _told(folder)}
    if damage:
        damage(folder, manifest)
    (folder / MANIFEST).write_bytes(canonical_json(seal(manifest)))


def _told(folder: Path) -> dict[str, Any]:
    return {p.name: {"size": p.stat().st_size, "sha256": sha256_file(p)} for p in sorted(folder.iterdir())}


def _damages(outside: Path) -> dict[str, Callable[[Path, dict[str, Any]], object]]:
    def named(name: str) -> Callable[[Path, dict[str, Any]], object]:
        def damage(folder: Path, manifest: dict[str, Any]) -> None:
            outside.mkdir(exist_ok=True)
            (outside / "x").write_text("secret")
            manifest["files"][name] = {"size": 6, "sha256": sha256_file(outside / "x")}

        return damage

    def linked(name: str) -> Callable[[Path, dict[str, Any]], object]:
        def damage(folder: Path, manifest: dict[str, Any]) -> None:
            outside.mkdir(exist_ok=True)
            away = outside / f"{folder.parent.name}-{name}"
            (folder / name).rename(away)
            (folder / name).symlink_to(away)

        return damage

    def piped(folder: Path, manifest: dict[str, Any]) -> None:
        (folder / "README.md").unlink()
        os.mkfifo(folder / "README.md")

    def changed(name: str) -> Callable[[Path, dict[str, Any]], object]:
        def damage(folder: Path, manifest: dict[str, Any]) -> None:
            raw = bytearray((folder / name).read_bytes())
            raw[-2] ^= 1
            (folder / name).write_bytes(raw)

        return damage

    def told(**changes: Any) -> Callable[[Path, dict[str, Any]], object]:
        return lambda folder, manifest: manifest.update(changes)

    def unlisted(name: str) -> Callable[[Path, dict[str, Any]], object]:
        return lambda folder, manifest: manifest["files"].pop(name)

    names = ["../x", "../../elsewhere/x", str(outside / "x"), "a/../../x", "/etc/passwd", "..", "."]
    names += ["C:\\x", "..\\x", "a\0b", "", "private/x", "manifest.json", "a//b", "~/x", "x\n", "\u202ex"]
    return {
        **{f"a file named {name[-20:]!r}": named(name) for name in names},
        **{f"{name} a link": linked(name) for name in (CONFIG, WEIGHTS, "README.md")},
        **{f"{name} changed": changed(name) for name in (CONFIG, WEIGHTS, "README.md")},
        **{f"{name} not listed": unlisted(name) for name in (CONFIG, WEIGHTS, "README.md")},
        "README.md a pipe": piped,
        "a file more": lambda folder, manifest: (folder / "adapter_model.bin").write_bytes(b"x"),
        "files that are a list": told(files=[CONFIG, WEIGHTS]),
        "files without sums": told(files={CONFIG: None, WEIGHTS: 3}),
        "a version of another number": told(version=2),
        "a name that is a path": told(name="../x"),
    }
