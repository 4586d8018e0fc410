"""Files that are no adapters we open, each told apart by its first bytes and refused by name."""

from __future__ import annotations

from pathlib import Path

from adapterkit.errors import Damaged, Unsupported

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
PICKLED_WEIGHTS = tuple(
    f"{stem}{suffix}" for stem in ("adapter_model", "pytorch_model") for suffix in PICKLED
)
CONVERT = (
    'python -c "import torch, safetensors.torch as s; s.save_file('
    "{{k: v.contiguous() for k, v in torch.load('{name}', map_location='cpu', weights_only=True).items()}}, "
    "'adapter_model.safetensors')\""
)


def check_file(path: Path) -> None:
    """Refuse what is not a safetensors file, without reading more than its beginning.

    Raises:
        Unsupported: a pickle, a zip, a GGUF, some other known format.
        Damaged: nothing in it.
    """
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise Damaged(f"{path.name} is empty.", hint=f"fetch or copy {path.name} again")
    is_zip = start[:4] == b"PK\x03\x04"
    if path.suffix.lower() in PICKLED or (
        start[0] == 0x80 and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    ):
        raise pickled(path.name)
    if start[:4] == b"GGUF":
        raise Unsupported(
            f"{path.name} is a GGUF file, made for llama.cpp; its way back is not exact.",
            hint="import the PEFT folder or the .adapter.safetensors it was made from",
        )
    if is_zip or start[:2] == b"\x1f\x8b" or path.suffix.lower() == ".tar":
        raise Unsupported(
            f"{path.name} is an archive.", hint=f"unpack it, then: adapterkit import {path.stem}/"
        )
    if path.name == "adapter_config.json":
        raise Unsupported(f"{path.name} is a part of an adapter.", hint=f"adapterkit import {path.parent}")


def check_folder(folder: Path) -> None:
    """Refuse a folder whose weights are pickled.

    Raises:
        Unsupported: it has a pickle and no safetensors file.
    """
    if (folder / "adapter_model.safetensors").is_file():
        return
    for name in PICKLED_WEIGHTS:
        if (folder / name).exists():
            raise pickled(name, folder)


def pickled(name: str, folder: Path | None = None) -> Unsupported:
    where = f"cd {folder} && " if folder else ""
    return Unsupported(
        f"{name} is a pickle; a pickle can run code, so it is not opened.",
        hint=f"convert it where you trust it: {where}{CONVERT.format(name=name)}",
        code="pickle",
    )
