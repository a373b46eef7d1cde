"""Checkpoints of dictionary_learning, from its first scripts of 2023 to dictionary-learning 0.1.0."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfnetlab.errors import ArtifactError
from sfnetlab.models.foreign.common import (
    Checkpoint,
    as_jumprelu,
    count,
    fitting,
    integer,
    named_as_ours,
    read_json,
    read_torch,
    tensors_of,
    unknown,
    with_unit_atoms,
)

WEIGHTS = "ae.pt"


def read_dictionary_learning(directory: Path) -> Checkpoint:
    path = directory / "config.json"
    config = read_json(path)
    config = config.get("trainer", config)  # the first scripts wrote them flat
    if not isinstance(config, dict):
        raise ArtifactError(f"{path}: expected the settings of a trainer under 'trainer', found {config!r}")
    file = directory / WEIGHTS
    state = tensors_of(file, read_torch(file))
    # Of settings that lack a size the weights have it: whatever is missing then is named by its tensor.
    weights = state.get("encoder.weight", state.get("W_dec"))
    n_latents, d_in = weights.shape if weights is not None and weights.ndim == 2 else (0, 0)
    d_in = integer(path, config, "activation_dim") if "activation_dim" in config else d_in
    n_latents = integer(path, config, "dict_size") if "dict_size" in config else n_latents
    latent, buffers = (n_latents,), {"k": (), "threshold": ()}  # the first versions had no buffers
    linear = {"encoder.weight": (n_latents, d_in), "decoder.weight": (d_in, n_latents)}
    direct = {"W_enc": (d_in, n_latents), "b_enc": latent, "W_dec": (n_latents, d_in), "b_dec": (d_in,)}
    match config.get("dict_class") or _class_of(path, config, state):
        case "AutoEncoder":
            tensors = named_as_ours(fitting(file, state, linear | {"encoder.bias": latent, "bias": (d_in,)}))
            return Checkpoint(**with_unit_atoms(tensors), rule="threshold", thresholds=torch.zeros(()))
        case "AutoEncoderNew":
            tensors = named_as_ours(fitting(file, state, linear | {"encoder.bias": latent, "decoder.bias": (d_in,)}))
            return Checkpoint(**tensors, rule="threshold", thresholds=torch.zeros(()), subtracts_b_dec=False)
        case "GatedAutoEncoder":
            names = {"decoder_bias": (d_in,), "r_mag": latent, "gate_bias": latent, "mag_bias": latent}
            tensors = named_as_ours(fitting(file, state, linear | names))
            return Checkpoint(**as_jumprelu(tensors), rule="threshold")
        case "AutoEncoderTopK":
            # Its threshold is for a mode that its inference does not use by itself.
            names = {"encoder.bias": latent, "b_dec": (d_in,)}
            tensors = named_as_ours(fitting(file, state, linear | names, optional=buffers))
            tensors.pop("threshold", None)
            return Checkpoint(**tensors | {"k": _same_k(path, config, tensors)}, rule="top_k")
        case "BatchTopKSAE":
            names = {"encoder.bias": latent, "b_dec": (d_in,)}
            tensors = named_as_ours(fitting(file, state, linear | names, optional=buffers))
            groups: tuple[int, ...] = ()
        case "MatryoshkaBatchTopKSAE" | "MatroyshkaBatchTopKSAE":  # as it was spelt in the first months
            names = {"group_sizes": (count(state, "group_sizes"),)}
            tensors = fitting(file, state, direct | names, optional=buffers)
            groups = tuple(int(size) for size in tensors.pop("group_sizes"))
        case "JumpReluAutoEncoder":
            tensors = fitting(file, state, direct | {"threshold": latent})
            thresholds = tensors.pop("threshold")
            return Checkpoint(**tensors, rule="threshold", thresholds=thresholds, subtracts_b_dec=False)
        case other:
            known = ("AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")
            raise unknown(path, "dict_class", other, (*known, "JumpReluAutoEncoder", "GatedAutoEncoder"))
    threshold = tensors.pop("threshold", torch.tensor(-1.0))
    return Checkpoint(
        **tensors | {"k": _same_k(path, config, tensors)},
        rule="batch_top_k",
        thresholds=threshold if threshold >= 0 else None,  # starts at -1
        group_sizes=groups,
    )


def _class_of(path: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """Return the class of settings from before they named it, by the names of the tensors or by the trainer."""
    if "r_mag" in state:
        return "GatedAutoEncoder"
    if "encoder.weight" in state and "bias" in state:
        return "AutoEncoder"
    if "decoder.bias" in state:
        return "AutoEncoderNew"
    trainers = {"TopKTrainer": "AutoEncoderTopK", "TrainerTopK": "AutoEncoderTopK", "BatchTopKTrainer": "BatchTopKSAE"}
    trainers |= {"JumpReluTrainer": "JumpReluAutoEncoder", "MatryoshkaBatchTopKTrainer": "MatryoshkaBatchTopKSAE"}
    trainer = str(config.get("trainer_class"))
    if trainer not in trainers:
        raise ArtifactError(
            f"{path}: expected dict_class, or trainer_class as one of {', '.join(trainers)}, found "
            f"{', '.join(config) or 'nothing'}; the tensors {', '.join(sorted(state))} alone do not say which latents "
            f"are active"
        )
    return trainers[trainer]


def _same_k(path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
    """Return k, which dictionary_learning stores in two files that must agree; its first versions in the settings."""
    k = integer(path, config, "k")
    if int(tensors.get("k", k)) != k:
        raise ArtifactError(f"{path}: expected k = {int(tensors['k'])} as in ae.pt, found {k}; which file is it of?")
    return k
