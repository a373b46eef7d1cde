"""Checkpoints that are one file: of the Euclid and BatchTopK repositories, OpenAI, saev, overcomplete and Gemma Scope.

Read in bartbussmann/BatchTopK and matryoshka_sae, neelnanda-io/1L-Sparse-Autoencoder, openai/sparse_autoencoder,
OSU-NLP-Group/saev (schemas 2 to 5) and KempnerInstitute/overcomplete 0.3.0.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfnetlab.errors import ArtifactError
from sfnetlab.models.foreign.common import (
    Checkpoint,
    count,
    fitting,
    integer,
    named_as_ours,
    read_json,
    read_torch,
    tensors_of,
    unknown,
)

ENDINGS = (".pth", ".pt", ".npz")
_BATCH_NORM_EPSILON = 1e-5
_log = logging.getLogger(__name__)


def read_single_file(path: Path) -> Checkpoint:
    """Return the checkpoint in one file; its bytes and the names of its tensors tell the library."""
    if path.suffix == ".npz":
        return _read_gemma_scope(path)
    try:
        with path.open("rb") as file:
            header = file.readline(2**20) if file.read(1) == b"{" else b""
    except OSError as error:
        raise ArtifactError(f"{path}: is not readable ({error})") from None
    if header:
        return _read_saev(path, b"{" + header)
    state = read_torch(path)
    if "pre_bias" in state:
        return _read_openai(path, state)
    if "dictionary._weights" in state:
        return _read_overcomplete(path, tensors_of(path, state))
    if "W_enc" in state or "b_dec" in state:
        return _read_direct(path, tensors_of(path, state))
    raise ArtifactError(
        f"{path}: expected the tensors W_enc, b_enc, W_dec and b_dec, or those of OpenAI (pre_bias, latent_bias) or "
        f"overcomplete (dictionary._weights), found {', '.join(state)}"
    )


def _read_direct(path: Path, state: dict[str, Tensor]) -> Checkpoint:
    """Tensors under SAELens' names without its settings: a file of settings beside them may say the rule."""
    d_in, n_latents = count(state, "b_dec"), count(state, "b_enc")
    latent = (n_latents,)
    shapes = {"W_enc": (d_in, n_latents), "b_enc": latent, "W_dec": (n_latents, d_in), "b_dec": (d_in,)}
    optional = {"num_batches_not_active": latent, "threshold": (), "jumprelu.log_threshold": latent}
    tensors: dict[str, Any] = fitting(path, state, shapes, optional)
    has_counter = tensors.pop("num_batches_not_active", None) is not None
    threshold, log_threshold = tensors.pop("threshold", None), tensors.pop("jumprelu.log_threshold", None)
    if threshold is not None and not threshold > 0:  # starts at 0
        threshold = None
    beside = (path.with_name(f"{path.stem}_cfg.json"), path.with_name("config.json"), path.with_name("cfg.json"))
    where = next((file for file in beside if file.is_file()), path)
    config: dict[str, Any] = {} if where == path else read_json(where)
    for name, expected in {"input_unit_norm": False, "activation": "relu", "use_encoder_bias": True}.items():
        if config.get(name, expected) != expected:
            raise unknown(where, name, config[name], (str(expected),))
    if config.get("tied_weights"):
        tensors["W_dec"] = tensors["W_enc"].T
    kind = str(config.get("sae_type", ""))
    if log_threshold is not None:
        return Checkpoint(**tensors, rule="threshold", thresholds=log_threshold.exp())
    if kind == "topk":
        return Checkpoint(**tensors, rule="top_k", k=integer(where, config, "top_k"))
    if "topk" in kind or has_counter or threshold is not None:
        k = integer(where, config, "top_k") if "top_k" in config else None
        groups = tuple(config.get("group_sizes") or ())
        return Checkpoint(**tensors, rule="batch_top_k", thresholds=threshold, k=k, group_sizes=groups)
    if kind == "vanilla" or (not kind and "l1_coeff" in config):
        return Checkpoint(**tensors, rule="threshold", thresholds=torch.zeros(()))
    if kind:
        raise unknown(where, "sae_type", kind, ("vanilla", "topk", "batchtopk", "jumprelu", "global-matryoshka-topk"))
    return Checkpoint(**tensors, rule="unknown")


def _read_openai(path: Path, state: dict[str, Any]) -> Checkpoint:
    activation, settings = state.pop("activation", "ReLU"), state.pop("activation_state_dict", None)
    n_latents, d_in = count(state, "latent_bias"), count(state, "pre_bias")
    if "decoder.linear.weight" in state:  # tied weights
        state["decoder.weight"] = state.pop("decoder.linear.weight").T
    shapes = {"encoder.weight": (n_latents, d_in), "decoder.weight": (d_in, n_latents)}
    statistics = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
    tensors = fitting(
        path,
        tensors_of(path, state),
        shapes | {"pre_bias": (d_in,), "latent_bias": (n_latents,)},
        dict.fromkeys(statistics, (n_latents,)),
    )
    for name in statistics:
        tensors.pop(name, None)
    renamed = named_as_ours(tensors)
    renamed |= {"b_dec": renamed.pop("pre_bias"), "b_enc": renamed.pop("latent_bias")}
    if activation != "ReLU":
        raise ArtifactError(
            f"{path}: activation = {activation!r} ({settings}) cannot be imported: with it the library "
            f"centres and scales each row by the row's own mean and spread, which no SAE here does; what can: ReLU"
        )
    return Checkpoint(**renamed, rule="threshold", thresholds=torch.zeros(()))


def _read_saev(path: Path, header: bytes) -> Checkpoint:
    try:
        about = dict(json.loads(header))
        schema, config = about.get("schema"), dict(about.get("cfg") or {})
        activation = dict(config.get("activation") or {}) if schema else {"cls": "Relu"}
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: its first line is no header of saev ({error}); is it another file?") from None
    if schema not in (None, 2, 3, 4, 5):
        # Some versions that wrote schema 1 subtract b_dec from the input and some do not.
        raise unknown(path, "schema", schema, ("none", "2", "3", "4", "5"))
    params = activation.get("params") or {}
    state = tensors_of(path, read_torch(path, skip=len(header)))
    d_in, n_latents = count(state, "b_dec"), count(state, "b_enc")
    shapes = {"W_enc": (d_in, n_latents), "b_enc": (n_latents,), "W_dec": (n_latents, d_in), "b_dec": (d_in,)}
    tensors = fitting(path, state, shapes, {"activation.threshold": ()})
    threshold = tensors.pop("activation.threshold", None)
    common: dict[str, Any] = {**tensors, "subtracts_b_dec": schema is None}
    match activation.get("cls"):
        case "Relu":
            return Checkpoint(**common, rule="threshold", thresholds=torch.zeros(()))
        case "BatchTopK" if threshold is not None:
            # Its inference lets all positive values pass where the threshold was never raised.
            k = integer(path, params, "top_k")
            return Checkpoint(**common, rule="batch_top_k", k=k, thresholds=threshold.clamp(min=0))
        case "TopK" | "BatchTopK":  # without a threshold the latter takes the k largest of each row too
            _log.warning("%s: saev keeps the negative ones among the k largest values; here they are 0", path)
            return Checkpoint(**common, rule="top_k", k=integer(path, params, "top_k"))
        case other:
            raise unknown(path, "activation", other, ("Relu", "TopK", "BatchTopK"))


def _read_overcomplete(path: Path, state: dict[str, Tensor]) -> Checkpoint:
    """A linear encoder, alone or with a batch norm, which is a scale and a shift once it is trained."""
    n_latents, d_in = state["dictionary._weights"].shape if state["dictionary._weights"].ndim == 2 else (0, 0)
    latent, linear, norm = (n_latents,), "encoder.final_block.0", "encoder.final_block.1"
    shapes: dict[str, tuple[int, ...]] = {"dictionary._weights": (n_latents, d_in)}
    shapes |= {f"{linear}.weight": (n_latents, d_in), f"{linear}.bias": latent}
    if has_norm := f"{norm}.weight" in state:
        shapes |= {f"{norm}.{part}": latent for part in ("weight", "bias", "running_mean", "running_var")}
    w = fitting(path, state, shapes, {f"{norm}.num_batches_tracked": ()})
    gain, shift = torch.ones(n_latents), torch.zeros(n_latents)
    if has_norm:
        gain = w[f"{norm}.weight"] / (w[f"{norm}.running_var"] + _BATCH_NORM_EPSILON).sqrt()
        shift = w[f"{norm}.bias"] - gain * w[f"{norm}.running_mean"]
    atoms = w["dictionary._weights"]
    if not torch.allclose(atoms.norm(dim=1), torch.ones(n_latents), atol=1e-3):
        raise ArtifactError(
            f"{path}: expected atoms of length 1 in dictionary._weights, found {float(atoms.norm(dim=1).min()):.3g} to "
            f"{float(atoms.norm(dim=1).max()):.3g}; their normalisation is not in the file: store get_dictionary()"
        )
    return Checkpoint(
        W_enc=(w[f"{linear}.weight"] * gain[:, None]).T,
        b_enc=w[f"{linear}.bias"] * gain + shift,
        W_dec=atoms,
        b_dec=torch.zeros(d_in),
        rule="unknown",
        subtracts_b_dec=False,
    )


def _read_gemma_scope(path: Path) -> Checkpoint:
    try:
        with np.load(path, allow_pickle=False) as file:
            state: Mapping[str, Tensor] = {name: torch.from_numpy(file[name]) for name in file.files}
    except Exception as error:  # noqa: BLE001
        raise ArtifactError(f"{path}: is not a readable .npz of tensors ({error}); fetch it again") from None
    d_in, n_latents = count(state, "b_dec"), count(state, "b_enc")
    shapes = {"W_enc": (d_in, n_latents), "b_enc": (n_latents,), "W_dec": (n_latents, d_in), "b_dec": (d_in,)}
    tensors = fitting(path, state, shapes | {"threshold": (n_latents,)})
    thresholds = tensors.pop("threshold")
    return Checkpoint(**tensors, rule="threshold", thresholds=thresholds, subtracts_b_dec=False)
