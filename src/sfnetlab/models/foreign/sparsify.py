"""Checkpoints of EleutherAI's sparsify (formerly sae), eai-sparsify 1.3.3 and before."""

from pathlib import Path

from sfnetlab.models.foreign.common import (
    Checkpoint,
    fitting,
    integer,
    named_as_ours,
    read_json,
    read_safetensors,
    unknown,
)

WEIGHTS = "sae.safetensors"


def read_sparsify(directory: Path) -> Checkpoint:
    path = directory / "cfg.json"
    config = read_json(path)
    switches = ("signed", "transcode", "skip_connection", "matching_pursuit")
    for name, expected in {"activation": "topk", **dict.fromkeys(switches, False)}.items():
        if config.get(name, expected) != expected:
            raise unknown(path, name, config[name], (str(expected),))
    d_in = integer(path, config, "d_in")
    if config.get("num_latents"):
        n_latents = integer(path, config, "num_latents")
    else:
        n_latents = d_in * integer(path, config, "expansion_factor")
    file = directory / WEIGHTS
    shapes = {"encoder.weight": (n_latents, d_in), "encoder.bias": (n_latents,), "W_dec": (n_latents, d_in)}
    tensors = named_as_ours(fitting(file, read_safetensors(file), shapes | {"b_dec": (d_in,)}))
    return Checkpoint(**tensors, rule="top_k", k=integer(path, config, "k"))
