"""Safetensors files: the safetensors library is the oracle both ways, and hostile headers are refused."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError, TensorSpec, deserialize, serialize
from safetensors.numpy import save_file

from adapterkit.errors import Damaged
from adapterkit.registry import tensorfile

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
Spec = dict[str, Any]


def _some() -> Tensors:
    draw = np.random.default_rng(3)
    return {
        "b.weight": ("F32", (3, 5), draw.normal(size=(3, 5)).astype("<f4").tobytes()),
        "a.weight": ("F16", (4,), draw.normal(size=4).astype("<f2").tobytes()),
        "a-half": ("BF16", (2, 3), draw.integers(0, 1 << 14, 6).astype("<u2").tobytes()),
        "n": ("I64", (), (7).to_bytes(8, "little")),
        "none": ("F32", (0, 4), b""),
    }


def _read(path: Path) -> Tensors:
    header = tensorfile.read_header(path)
    with path.open("rb") as file:
        return {
            n: (e.dtype, e.shape, tensorfile.read_bytes(file, header, n)) for n, e in header.entries.items()
        }


def _file(path: Path, table: object, data: bytes = b"") -> Path:
    raw = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def _f32(begin: int, end: int, shape: list[int] | None = None) -> Spec:
    return {
        "dtype": "F32",
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


# --- the library as oracle ---


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensorfile.write(path, _some(), {"format": "pt"})
    told = {n: (s["dtype"], tuple(s["shape"]), bytes(s["data"])) for n, s in deserialize(path.read_bytes())}
    assert told == _some()


def test_the_metadata_comes_back(tmp_path: Path) -> None:
    tensorfile.write(tmp_path / "x.safetensors", _some(), {"format": "pt", "manifest": '{"ä": "\\n"}'})
    assert tensorfile.read_header(tmp_path / "x.safetensors").metadata == {
        "format": "pt",
        "manifest": '{"ä": "\\n"}',
    }


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}
    held = {n: np.frombuffer(b, np.uint8) for n, (_, _, b) in _some().items() if b}
    specs = {
        n: TensorSpec(dtype=names[d], shape=list(s), data_ptr=held[n].ctypes.data, data_len=len(b))
        for n, (d, s, b) in _some().items()
        if b
    }
    raw = serialize(specs, {"format": "pt"})
    (tmp_path / "x.safetensors").write_bytes(raw)
    assert _read(tmp_path / "x.safetensors") == {n: t for n, t in _some().items() if t[2]}


def test_an_empty_tensor_may_come_after_a_full_one_at_the_same_place(tmp_path: Path) -> None:
    arrays = {"a": np.zeros((0, 4), "f4"), "b": np.ones((2,), "f4"), "c": np.zeros((0,), "f4")}
    save_file(arrays, tmp_path / "x.safetensors")
    assert set(_read(tmp_path / "x.safetensors")) == {"a", "b", "c"}


def test_the_header_may_list_tensors_in_any_order(tmp_path: Path) -> None:
    table = {"late": _f32(4, 8), "early": _f32(0, 4), "none": _f32(4, 4)}
    path = _file(tmp_path / "x.safetensors", table, struct.pack("<2f", 1.0, 2.0))
    assert _read(path)["late"] == ("F32", (1,), struct.pack("<f", 2.0))


# --- canonical bytes ---


def test_the_same_tensors_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    tensors = _some()
    tensorfile.write(tmp_path / "one", tensors, {"b": "2", "a": "1"})
    tensorfile.write(tmp_path / "two", dict(reversed(tensors.items())), {"a": "1", "b": "2"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_data_begins_at_a_multiple_of_eight(tmp_path: Path) -> None:
    for i in range(9):
        tensorfile.write(tmp_path / "x", {"n" * (i + 1): ("I8", (1,), b"\1")}, {})
        assert tensorfile.read_header(tmp_path / "x").data_start % 8 == 0


# --- hostile files ---

BAD: dict[str, tuple[object, bytes]] = {
    "overlapping": ({"a": _f32(0, 8), "b": _f32(4, 12)}, bytes(12)),
    "the same place twice": ({"a": _f32(0, 8), "b": _f32(0, 8)}, bytes(8)),
    "a gap": ({"a": _f32(0, 4), "b": _f32(8, 12)}, bytes(12)),
    "a gap at the beginning": ({"a": _f32(4, 8)}, bytes(8)),
    "bytes left over": ({"a": _f32(0, 4)}, bytes(5)),
    "bytes missing": ({"a": _f32(0, 8)}, bytes(7)),
    "begins after its end": ({"a": _f32(4, 0, [1])}, bytes(4)),
    "shape and bytes differ": ({"a": _f32(0, 8, [3])}, bytes(8)),
    "shape that overflows": ({"a": _f32(0, 0, [1 << 62, 4])}, b""),
    "negative shape": ({"a": _f32(0, 4, [-1, -1])}, bytes(4)),
    "negative offset": ({"a": _f32(-4, 0, [1])}, b""),
    "shape of fractions": ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, bytes(4)),
    "shape of booleans": ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, bytes(4)),
    "shape that is a word": ({"a": {"dtype": "F32", "shape": "11", "data_offsets": [0, 4]}}, bytes(4)),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, bytes(4)),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "unknown dtype": ({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "dtype that is a list": ({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "dtype in lower case": ({"a": {"dtype": "f32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "name with a slash": ({"../a": _f32(0, 4)}, bytes(4)),
    "empty name": ({"": _f32(0, 4)}, bytes(4)),
    "name with a line end": ({"a\n": _f32(0, 4)}, bytes(4)),
    "name with a NUL": ({"a\0": _f32(0, 4)}, bytes(4)),
    "name too long": ({"a" * 300: _f32(0, 4)}, bytes(4)),
    "too many tensors": ({f"t{i}": _f32(0, 0) for i in range(5000)}, b""),
    "an entry that is a number": ({"a": 3}, b""),
    "not JSON": (b"\x80\x02ccopy_reg", b""),
    "JSON cut short": (b'{"a": {"dtype"', b""),
    "a JSON list": (b"[1, 2]", b""),
    "JSON nested deeply": (b"[" * 100_000, b""),
    "a number of 5,000 digits": (b'{"a":' + b"9" * 5000 + b"}", b""),
}


@pytest.mark.parametrize("case", BAD)
def test_a_hostile_header_is_refused(tmp_path: Path, case: str) -> None:
    path = _file(tmp_path / "x.safetensors", *BAD[case])
    with pytest.raises(Damaged, match=r"x\.safetensors is not a whole safetensors file"):
        tensorfile.read_header(path)


@pytest.mark.parametrize("metadata", [3, ["pt"], {"a": 3}, {"a": None}])
def test_metadata_that_is_not_words_is_refused(tmp_path: Path, metadata: object) -> None:
    path = _file(tmp_path / "x.safetensors", {"__metadata__": metadata, "a": _f32(0, 4)}, bytes(4))
    with pytest.raises(Damaged, match="not a whole safetensors file"):
        tensorfile.read_header(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_header_that_is_not_plain_utf8_is_refused(tmp_path: Path, encoding: str) -> None:
    path = _file(tmp_path / "x.safetensors", json.dumps({"a": _f32(0, 4)}).encode(encoding), bytes(4))
    with pytest.raises(Damaged, match="not a whole safetensors file"):
        tensorfile.read_header(path)


LENGTHS: dict[str, Callable[[], bytes]] = {
    "no bytes at all": lambda: b"",
    "less than a length": lambda: b"\2\0\0",
    "a length and no more": lambda: (2).to_bytes(8, "little"),
    "a length past the end": lambda: (100).to_bytes(8, "little") + b"{}",
    "a length of 2 to the 64": lambda: b"\xff" * 8 + b"{}",
    "a header over the cap": lambda: ((1 << 20) + 8).to_bytes(8, "little") + b"{}".ljust((1 << 20) + 8),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_a_length_that_can_not_be_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(LENGTHS[case]())
    with pytest.raises(Damaged, match="its header says"):
        tensorfile.read_header(path)


def test_a_packed_file_may_have_a_longer_header(tmp_path: Path) -> None:
    tensorfile.write(tmp_path / "x", _some(), {"manifest": "m" * (2 << 20)})
    with pytest.raises(Damaged, match="its header says"):
        tensorfile.read_header(tmp_path / "x")
    assert tensorfile.read_header(tmp_path / "x", cap=4 << 20).entries.keys() == _some().keys()


def test_a_header_is_read_from_what_is_open_already(tmp_path: Path) -> None:
    tensorfile.write(tmp_path / "x", _some(), {})
    raw = io.BytesIO((tmp_path / "x").read_bytes())
    header = tensorfile.header_of(raw, len(raw.getvalue()), "x")
    assert header == tensorfile.read_header(tmp_path / "x")
    assert raw.tell() == header.data_start


def test_tensors_in_order_are_those_of_the_file(tmp_path: Path) -> None:
    table = {"late": _f32(4, 8), "early": _f32(0, 4), "none": _f32(4, 4)}
    header = tensorfile.read_header(_file(tmp_path / "x", table, bytes(8)))
    assert [name for name, _ in header.in_order()] == ["early", "none", "late"]


CODES = {
    b'{"a":1,"a":1}': "header-duplicate-key",
    b'{"__metadata__":{"a":1}}': "header-metadata",
    b'{"a":1e999}': "header-number",
    b'{"a":NaN}': "header-number",
    b'{"a":' + b"9" * 21 + b"}": "header-number",
    b'{"a":' + b"[" * 90_000: "header-nesting",
    b'{"\xe4":1}': "header-encoding",
    b'{"a":': "header-json",
    b'{"a":1}': "tensor-entry",
    b'{"../a":1}': "tensor-name",
}


@pytest.mark.parametrize("header", CODES, ids=CODES.values())
def test_each_cause_has_its_own_code(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(Damaged) as e:
        tensorfile.read_header(_file(tmp_path / "x", header))
    assert e.value.code == CODES[header]


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole", tmp_path / "cut"
    tensorfile.write(whole, _some(), {"format": "pt"})
    raw = whole.read_bytes()
    for n in range(0, len(raw), 3):
        path.write_bytes(raw[:n])
        with pytest.raises(Damaged):
            tensorfile.read_header(path)


def test_what_is_accepted_the_library_accepts_too(tmp_path: Path) -> None:
    """Flip bytes of a header at random: nothing passes here that the library refuses."""
    tensorfile.write(tmp_path / "whole", _some(), {"format": "pt"})
    raw = (tmp_path / "whole").read_bytes()
    start, draw = tensorfile.read_header(tmp_path / "whole").data_start, np.random.default_rng(5)
    passed = []
    for _ in range(400):
        at, to = int(draw.integers(0, start)), int(draw.integers(0, 128))
        mutant = raw[:at] + bytes([to]) + raw[at + 1 :]
        (tmp_path / "mutant").write_bytes(mutant)
        try:
            tensorfile.read_header(tmp_path / "mutant")
        except Damaged:
            continue
        try:
            deserialize(mutant)
        except SafetensorError as e:
            passed.append(f"byte {at} to {to}: {e}")
    assert passed == []


# --- numbers that are not finite ---


@pytest.mark.parametrize(("dtype", "kind"), [("F32", "<u4"), ("F16", "<u2"), ("BF16", "<u2")])
def test_numbers_that_are_not_finite_are_counted(dtype: str, kind: str) -> None:
    bits = {  # 1, largest finite, smallest denormal, -0; then inf, -inf, quiet nan, signalling nan, -nan
        "F32": [
            0x3F800000,
            0x7F7FFFFF,
            1,
            0x80000000,
            0x7F800000,
            0xFF800000,
            0x7FC00000,
            0x7F800001,
            0xFFC00000,
        ],
        "F16": [0x3C00, 0x7BFF, 1, 0x8000, 0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFE00],
        "BF16": [0x3F80, 0x7F7F, 1, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0x7F81, 0xFFC0],
    }[dtype]
    good, every = np.array(bits[:4], kind).tobytes(), np.array(bits, kind).tobytes()
    assert (tensorfile.not_finite(dtype, good), tensorfile.not_finite(dtype, every)) == (0, 5)


def test_not_finite_is_found_wherever_it_is_in_a_large_tensor() -> None:
    n = 3 * tensorfile.AT_ONCE + 5
    for at in (0, tensorfile.AT_ONCE - 1, tensorfile.AT_ONCE, 3 * tensorfile.AT_ONCE, n - 1):
        values = np.zeros(n, "<f4")
        values[at] = np.inf
        assert tensorfile.not_finite("F32", values.tobytes()) == 1


@pytest.mark.parametrize(("dtype", "kind"), [("F32", np.float32), ("F16", np.float16)])
def test_not_finite_agrees_with_numpy_on_any_bits(dtype: str, kind: type[np.floating[Any]]) -> None:
    raw = np.random.default_rng(0).integers(0, 256, 1 << 16, dtype=np.uint8).tobytes()
    assert tensorfile.not_finite(dtype, raw) == int((~np.isfinite(np.frombuffer(raw, kind))).sum())


def test_whole_numbers_are_always_finite() -> None:
    assert tensorfile.not_finite("I64", b"\xff" * 64) == 0
