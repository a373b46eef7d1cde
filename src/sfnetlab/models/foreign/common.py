"""What readers of other libraries' checkpoints share: their common form, files of tensors, and checks of both."""

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from sfnetlab.errors import ArtifactError

_NESTS = ("state_dict", "model_state_dict", "model", "ae", "sae", "autoencoder")
"""Under which of these names a checkpoint of a training keeps the state of its model."""
_WRAPPERS = ("module", "_orig_mod")
"""Parts of names that DistributedDataParallel and torch.compile put in."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The common form of every layout: latents are (factor x - b_dec) W_enc + b_enc, decoded by W_dec and b_dec."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    rule: Literal["top_k", "batch_top_k", "threshold", "unknown"]
    k: int | None = None
    thresholds: Tensor | None = None
    """Threshold of each latent, or one for all; None for top_k, and for batch_top_k that was never calibrated."""
    group_sizes: tuple[int, ...] = ()
    subtracts_b_dec: bool = True
    input_factor: float = 1.0


def named_as_ours(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the tensors under our names; weights of linear layers, which are stored transposed, become as ours."""
    names = {"encoder.weight": "W_enc", "decoder.weight": "W_dec", "encoder.bias": "b_enc", "gate_bias": "b_gate"}
    names |= {"mag_bias": "b_mag", "bias": "b_dec", "decoder.bias": "b_dec", "decoder_bias": "b_dec"}
    return {
        names.get(name, name): value.T if value.ndim == 2 and "." in name else value for name, value in tensors.items()
    }


def with_unit_atoms(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return tensors with atoms of length 1 and the same reconstructions: latents take over the atoms' lengths."""
    norms = tensors["W_dec"].norm(dim=1)
    return {
        **tensors,
        "W_enc": tensors["W_enc"] * norms,
        "b_enc": tensors["b_enc"] * norms,
        # The latent of an atom of length 0 is 0.
        "W_dec": tensors["W_dec"] / norms.where(norms > 0, 1)[:, None],
    }


def as_jumprelu(gated: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the tensors of a gated SAE as those of a JumpReLU with the same latents.

    Gate and magnitude share the encoder, so that the gate is a threshold on the magnitude:
    x W + b_gate > 0 just where exp(r) x W + b_mag > b_mag - exp(r) b_gate (Rajamanoharan et al. 2024, arXiv:2404.16014,
    appendix).
    """
    gain = gated["r_mag"].exp()
    return {
        "W_enc": gated["W_enc"] * gain,
        "b_enc": gated["b_mag"],
        "W_dec": gated["W_dec"],
        "b_dec": gated["b_dec"],
        "thresholds": gated["b_mag"] - gain * gated["b_gate"],
    }


def integer(path: Path, config: Mapping[str, Any], name: str) -> int:
    value = whole(config.get(name))
    if value is None or value < 1:
        raise ArtifactError(f"{path}: expected a positive integer {name}, found {config.get(name)!r}; is it complete?")
    return value


def whole(value: object) -> int | None:
    return int(value) if isinstance(value, int) or (isinstance(value, float) and value.is_integer()) else None


def count(state: Mapping[str, Tensor], name: str) -> int:
    return state[name].numel() if name in state else 0


def unknown(path: Path, setting: str, found: object, known: Sequence[str]) -> ArtifactError:
    return ArtifactError(f"{path}: {setting} = {found!r} cannot be imported; what can: {', '.join(known)}")


def fitting(
    path: Path,
    state: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    optional: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return exactly the tensors of these names as float32; an ArtifactError if names, shapes or values are wrong."""
    shapes = {**shapes, **{name: shape for name, shape in optional.items() if name in state}}
    if state.keys() != shapes.keys():
        missing, odd = sorted(shapes.keys() - state.keys()), sorted(state.keys() - shapes.keys())
        raise ArtifactError(
            f"{path}: expected tensors {', '.join(sorted(shapes))}; missing: {', '.join(missing) or 'none'}, "
            f"unexpected: {', '.join(odd) or 'none'}; its settings are of another architecture"
        )
    for name, shape in shapes.items():
        # A vector may be stored as one row, a number as one entry.
        if [size for size in state[name].shape if size != 1] != [size for size in shape if size != 1]:
            raise ArtifactError(
                f"{path}: expected {name} of shape {shape}, found {tuple(state[name].shape)}; "
                f"do the weights and the settings belong together?"
            )
        if not bool(state[name].isfinite().all()):
            raise ArtifactError(f"{path}: {name} holds NaN or infinite values; the training diverged, take another")
    return {name: state[name].float().reshape(shape) for name, shape in shapes.items()}


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: is not readable ({error}); the weights alone do not say what they are") from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: expected an object with settings, found {type(content).__name__}")
    return content


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of all its shards where an index stands in its place."""
    index = path.with_name(f"{path.name}.index.json")
    if not path.is_file() and index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise ArtifactError(f"{index}: expected 'weight_map', the shard of each tensor, found {shards!r}")
        parts = [read_safetensors(path.with_name(Path(str(name)).name)) for name in sorted(set(shards.values()))]
        return {name: tensor for part in parts for name, tensor in part.items()}
    try:
        return _unwrapped(load(path.read_bytes()))
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: is not a readable safetensors file ({error}); fetch it again") from None


def read_torch(path: Path, skip: int = 0) -> dict[str, Any]:
    """Return what a file of `torch.save` holds after its first `skip` bytes: a state_dict, as its library named it.

    The state may lie in a checkpoint of a training, and names may have what wrappers of modules add to them. Values
    that are no tensors stay: settings, of which some libraries keep a few there.
    """
    try:
        source = BytesIO(path.read_bytes()[skip:]) if skip else path
        content = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # Not torch's own message: it advises to run what is in the file.
        raise ArtifactError(
            f"{path}: is damaged, or holds Python objects, which could run code and are never loaded; "
            f"where you trust it, store its state_dict() alone"
        ) from None
    except Exception as error:  # noqa: BLE001
        # Fuzzed pickles raised ten kinds, struct.error and AssertionError among them.
        raise ArtifactError(f"{path}: is not a readable torch file ({error!r}); fetch it again") from None
    found = content
    while isinstance(found, dict) and not any(isinstance(value, Tensor) for value in found.values()):
        found = next((found[name] for name in _NESTS if isinstance(found.get(name), dict)), None)
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        names = f" with {', '.join(map(str, content)) or 'nothing'}" if isinstance(content, dict) else ""
        raise ArtifactError(f"{path}: expected a state_dict of tensors, found {type(content).__name__}{names}")
    return _unwrapped(found)


def tensors_of(path: Path, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state as it is; an ArtifactError unless all of it are tensors."""
    if odd := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ArtifactError(f"{path}: expected a state_dict of tensors, but these are none: {', '.join(odd)}")
    return dict(state)


def _unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state with the names that its model's own parameters have."""
    names = {name: [part for part in name.split(".") if part not in _WRAPPERS] or [name] for name in state}
    while names and all(len(parts) > 1 for parts in names.values()):
        heads = {parts[0] for parts in names.values()}
        if len(heads) > 1 or not heads <= set(_NESTS):
            break
        names = {name: parts[1:] for name, parts in names.items()}
    return {".".join(parts): state[name] for name, parts in names.items()}
