"""Checkpoints of SAELens by the rules of its versions 1 to 6 (sae-lens 6.54.12), and ours written in its layout."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sfnetlab.errors import ArtifactError
from sfnetlab.models.foreign.common import (
    Checkpoint,
    as_jumprelu,
    count,
    fitting,
    integer,
    read_json,
    read_safetensors,
    unknown,
    whole,
    with_unit_atoms,
)
from sfnetlab.models.sae import SparseAutoencoder

SAE_LENS_VERSION = "6.54.12"  # whose layout `export_saelens` writes; without one SAELens would read a file as pre-6.0
WEIGHTS = "sae_weights.safetensors"


def export_saelens(directory: Path, sae: SparseAutoencoder) -> None:
    """Write `cfg.json` and `sae_weights.safetensors` into a directory, for `sae_lens.SAE.load_from_disk`.

    Top-k becomes topk, thresholds become jumprelu. Centring and scale are folded into the weights, so that the export
    takes and gives embeddings in their own units, as ours does. Its latents have the values of ours (in units of
    `scale`), and its atoms have the length `scale`, or are ours in units of each column's scale. Groups go into the
    metadata, where SAELens keeps those of its own exports.
    """
    W_enc, b_enc, W_dec, b_dec, mean, scale, thresholds = (
        getattr(sae, name).detach().cpu().double()
        for name in ("W_enc", "b_enc", "W_dec", "b_dec", "mean", "scale", "thresholds")
    )
    # SAELens subtracts its one b_dec from the input too, which centres large means as exactly as we do; b_enc gives
    # back what that takes away beyond our mean.
    centre = (mean + scale * b_dec).float().double()
    state = {
        "W_enc": W_enc / scale.reshape(-1, 1),
        "b_enc": b_enc + (centre - mean) / scale @ W_enc,
        "W_dec": W_dec * scale,
        "b_dec": centre,
    }
    config: dict[str, Any] = {
        "architecture": "topk" if sae.rule == "topk" else "jumprelu",
        "d_in": sae.d_in,
        "d_sae": sae.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if sae.rule == "topk":
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    else:
        state["threshold"] = thresholds
    details: dict[str, Any] = {"k": sae.k} if sae.k is not None else {}
    if sae.group_sizes:
        details["matryoshka_widths"] = list(sae.prefixes)
    config["metadata"] = {"sae_lens_version": SAE_LENS_VERSION, "training_architecture_details": details}
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.float().contiguous() for name, tensor in state.items()}
    (directory / "sae_weights.safetensors").write_bytes(save(tensors))
    (directory / "cfg.json").write_text(json.dumps(config, indent=1, allow_nan=False) + "\n")


def read_saelens(directory: Path) -> Checkpoint:
    path = directory / "cfg.json"
    config = read_json(path)
    # Before 6.0 top-k was an activation function of the standard architecture, and these had other names and types.
    architecture = config.get("architecture", "standard")
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if activation == "topk":
        architecture, config = "topk", config | (config.get("activation_fn_kwargs") or {})
    elif activation != "relu":
        raise unknown(path, "activation_fn", activation, ("relu", "topk"))
    details = (config.get("metadata") or {}).get("training_architecture_details") or {}

    file = directory / WEIGHTS
    state = _with_factor_in_atoms(read_safetensors(file), is_used=bool(config.get("finetuning_scaling_factor")))
    # Of settings that lack a size the weights have it: whatever is missing then is named by its tensor.
    d_in = integer(path, config, "d_in") if "d_in" in config else count(state, "b_dec")
    n_latents = integer(path, config, "d_sae") if config.get("d_sae") else len(state.get("W_dec", ()))
    latent, coders = (n_latents,), {"W_enc": (d_in, n_latents), "W_dec": (n_latents, d_in), "b_dec": (d_in,)}
    common: dict[str, Any] = {
        "input_factor": _saelens_input_factor(path, config),
        "subtracts_b_dec": bool(config.get("apply_b_dec_to_input", True)),
        "group_sizes": _differences(config.get("matryoshka_widths") or details.get("matryoshka_widths"), n_latents),
    }
    match architecture:
        case "standard":
            tensors = fitting(file, state, coders | {"b_enc": latent})
            return Checkpoint(**tensors, **common, rule="threshold", thresholds=torch.zeros(()))
        case "topk":
            tensors = fitting(file, state, coders | {"b_enc": latent})
            if config.get("rescale_acts_by_decoder_norm", False):
                tensors = with_unit_atoms(tensors)
            return Checkpoint(**tensors, **common, rule="top_k", k=integer(path, config, "k"))
        case "batchtopk" | "matryoshka_batchtopk":
            tensors = fitting(file, state, coders | {"b_enc": latent, "topk_threshold": ()})
            threshold = tensors.pop("topk_threshold")
            if not isinstance(rescale := config.get("rescale_acts_by_decoder_norm"), bool):
                raise ArtifactError(
                    f"{path}: expected rescale_acts_by_decoder_norm true or false, found {rescale!r}; versions of "
                    f"SAELens differ in what they then assume, so add what it was trained with"
                )
            if rescale:
                tensors = with_unit_atoms(tensors)
            return Checkpoint(
                **tensors,
                **common,
                rule="batch_top_k",
                k=whole(config.get("k")),
                thresholds=threshold if threshold > 0 else None,  # starts at 0
            )
        case "jumprelu":
            is_log = "log_threshold" in state
            tensors = fitting(
                file, state, coders | {"b_enc": latent, "log_threshold" if is_log else "threshold": latent}
            )
            thresholds = tensors.pop("log_threshold").exp() if is_log else tensors.pop("threshold")
            return Checkpoint(**tensors, **common, rule="threshold", thresholds=thresholds, k=whole(details.get("k")))
        case "gated":
            tensors = fitting(file, state, coders | {"b_gate": latent, "b_mag": latent, "r_mag": latent})
            return Checkpoint(**as_jumprelu(tensors), **common, rule="threshold")
        case _:
            known = ("standard", "topk", "batchtopk", "matryoshka_batchtopk", "jumprelu", "gated")
            raise unknown(path, "architecture", architecture, known)


def _with_factor_in_atoms(state: dict[str, Tensor], *, is_used: bool) -> dict[str, Tensor]:
    """Return the tensors without the factor of each latent that a finetuning of the decoder learnt: atoms take it over.

    Older versions stored it unused, all ones, or under another name.
    """
    name = next((name for name in ("finetuning_scaling_factor", "scaling_factor") if name in state), None)
    if name is None or not (is_used or bool((state[name] == 1).all())):
        return state
    kept = {key: tensor for key, tensor in state.items() if key != name}
    return kept | {"W_dec": state["W_dec"] * state[name][:, None]} if is_used and "W_dec" in state else kept


def _saelens_input_factor(path: Path, config: Mapping[str, Any]) -> float:
    """Return the factor by which inputs are multiplied before the weights of a SAELens checkpoint."""
    setting = config.get("normalize_activations") or "none"
    if setting == "none":
        return 1.0
    if setting not in ("expected_average_only_in", True):
        raise ArtifactError(
            f"{path}: normalize_activations = {setting!r} depends on each row or on statistics kept elsewhere and "
            f"cannot be expressed by one mean and one scale; fold it in SAELens where it can, or retrain with 'none'"
        )
    scaler = path.with_name("activation_scaler.json")  # only checkpoints of a training that goes on have it
    factor = read_json(scaler).get("scaling_factor") if scaler.is_file() else None
    if not isinstance(factor, float | int) or not factor > 0:
        raise ArtifactError(
            f"{path}: normalize_activations = {setting!r}, and its factor is not in {scaler.name}; in SAELens call "
            f"fold_activation_norm_scaling_factor(factor) and save it again"
        )
    return float(factor)


def _differences(widths: Sequence[int] | None, n_latents: int) -> tuple[int, ...]:
    """Return group sizes from the sizes of nested dictionaries.

    As in SAELens, the whole dictionary is added where it is not the last of them.
    """
    if not widths:
        return ()
    whole = () if widths[-1] == n_latents else (n_latents,)
    return tuple(high - low for low, high in pairwise((0, *widths, *whole)))
