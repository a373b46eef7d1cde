"""A training run's state in one safetensors file: tensors as tensors, everything around them as JSON in its header.

What is read equals what was written, including types, memory layout, and the integer keys and tuples of optimisers.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sfnetlab.errors import ArtifactError
from sfnetlab.files import replacing

FORMAT = "2"


def write_checkpoint(path: Path, state: Any) -> None:
    """Write a checkpoint, in the place of an older one; whatever kills the process, one of the two is there, whole.

    Parameters
    ----------
    state
        Dicts (string or integer keys), lists and tuples, nested, of tensors, strings, numbers, booleans and None.

    Raises
    ------
    TypeError
        If the state holds anything else.
    """
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_pack(state, tensors))
    metadata = {"format": FORMAT, "structure": structure, "crc32": str(_checksum(structure, tensors))}
    with replacing(path) as partial:
        partial.write_bytes(save(tensors, metadata))  # save_file would hide that a disk is full behind its own error


def read_checkpoint(path: Path) -> Any:
    """Return the state that `write_checkpoint` wrote, on the CPU.

    Raises
    ------
    ArtifactError
        If the file is missing or damaged, or of another format.
    """
    try:
        stored = path.read_bytes()  # safe_open would map the file, which not every file system can do
        tensors = load(stored)
        header = json.loads(stored[8 : 8 + int.from_bytes(stored[:8], "little")])
        metadata: dict[str, str] = header.get("__metadata__", {})
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: not a readable checkpoint ({error}); remove it to train from the start") from None
    if metadata.get("format") != FORMAT:
        raise ArtifactError(
            f"{path}: expected a checkpoint of format {FORMAT}, found {metadata.get('format')!r}; "
            f"remove it to train from the start"
        )
    structure = metadata.get("structure", "")
    if metadata.get("crc32") != str(_checksum(structure, tensors)):
        raise ArtifactError(f"{path}: the checkpoint is damaged (wrong checksum); remove it to train from the start")
    return _unpack(json.loads(structure), tensors)


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return JSON data in which every container and tensor is an object with one tagged entry.

    Tensors are copied into `tensors`, and the JSON holds their names.
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {"channels_last" if _is_channels_last(value) else "tensor": name}
    if isinstance(value, Mapping):
        wrong = [key for key in value if type(key) not in (str, int)]
        if wrong:
            raise TypeError(f"keys of a checkpoint are strings or integers, got {wrong[0]!r}")
        return {"dict": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_pack(item, tensors) for item in value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values, got {type(value).__name__}")


def _unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(packed, dict):
        return packed
    ((tag, content),) = packed.items()
    match tag:
        case "tensor":
            return tensors[content]
        case "channels_last":
            return tensors[content].to(memory_format=torch.channels_last)
        case "dict":
            return {key: _unpack(item, tensors) for key, item in content}
        case _:
            return {"list": list, "tuple": tuple}[tag](_unpack(item, tensors) for item in content)


def _is_channels_last(tensor: Tensor) -> bool:
    # Optimisers keep their moments in the layout of the weights, and another layout could round differently.
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _checksum(structure: str, tensors: Mapping[str, Tensor]) -> int:
    checksum = zlib.crc32(structure.encode())
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        if tensor.numel():
            checksum = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, checksum)
    return checksum
