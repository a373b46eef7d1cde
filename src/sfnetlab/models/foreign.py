"""Imports checkpoints of other libraries as our sparse autoencoder, and exports ours in SAELens' layout.

Names and formulas were read in, and checked against, sae-lens 6.54.12, dictionary-learning 0.1.0, eai-sparsify 1.3.3
and the repository of Wu & Walmsley 2025 (arXiv:2510.23749).
"""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sfnetlab.errors import ArtifactError
from sfnetlab.models.sae import SparseAutoencoder

SAE_LENS_VERSION = "6.54.12"  # whose layout `export_saelens` writes; without one SAELens would read a file as pre-6.0


@dataclass(frozen=True, kw_only=True)
class _Checkpoint:
    """The common form of every format: latents are (factor x - b_dec) W_enc + b_enc, decoded by W_dec and b_dec."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    rule: Literal["top_k", "batch_top_k", "threshold"]
    k: int | None = None
    thresholds: Tensor | None = None
    """Threshold of each latent, or one for all; None for top_k, and for batch_top_k that was never calibrated."""
    group_sizes: tuple[int, ...] = ()
    subtracts_b_dec: bool = True
    input_factor: float = 1.0


def import_sae(path: Path, *, row_top_k: int | None = None, group_sizes: Sequence[int] = ()) -> SparseAutoencoder:
    """Return a checkpoint of another library, with the latents and reconstructions that its own inference gives.

    The files tell the library: `sae_weights.safetensors` with `cfg.json` (SAELens: standard, topk, batchtopk,
    matryoshka_batchtopk, jumprelu, gated), `ae.pt` with `config.json` (dictionary_learning: the same kinds, as its
    `load_dictionary` gives them, which norms the atoms of an `AutoEncoder`), `sae.safetensors` with `cfg.json`
    (sparsify: topk), or one `*.pth` (the state_dict of the Euclid repository's MatryoshkaSAE; it takes embeddings
    standardised by column as in its training, by numbers that the file does not hold). Rows of W_dec keep the length
    they have there; 16-bit weights become float32. Nothing is unpickled but tensors.

    Parameters
    ----------
    path
        The directory, or the `.pth` file.
    row_top_k
        Read batch-top-k as top-k of each row, with this k. That is needed where the checkpoint holds no threshold, as
        Euclid's never does: its latents would otherwise depend on the other rows of a batch.
    group_sizes
        Matryoshka groups, for formats that do not hold them.

    Raises
    ------
    ArtifactError
        If a file is missing, damaged or of an unknown kind, or its weights do not fit its settings. Also if the model
        cannot be expressed exactly: normalisation of each row, whitening or a factor kept elsewhere, transcoders, skip
        connections.
    """
    read, directory = _reader(path)
    checkpoint = read(directory)
    if row_top_k is not None:
        if checkpoint.rule != "batch_top_k":
            raise ArtifactError(f"{path}: row_top_k is for batch-top-k, this is {checkpoint.rule}; leave it out")
        if checkpoint.k not in (None, row_top_k):
            raise ArtifactError(f"{path}: was trained with k = {checkpoint.k}, row_top_k is {row_top_k}; give its k")
    elif checkpoint.rule == "batch_top_k" and checkpoint.thresholds is None:
        raise ArtifactError(
            f"{path}: batch-top-k without a calibrated threshold: a row's latents would depend on the other rows; "
            f"give row_top_k ({checkpoint.k or 'its k'}) to read it as top-k of each row"
        )
    if group_sizes and checkpoint.group_sizes not in ((), tuple(group_sizes)):
        raise ArtifactError(
            f"{path}: expected group_sizes {list(group_sizes)}, it holds {list(checkpoint.group_sizes)}; leave them out"
        )
    is_top_k = checkpoint.rule == "top_k" or row_top_k is not None
    d_in, n_latents = checkpoint.W_enc.shape
    try:
        sae = SparseAutoencoder(
            d_in,
            n_latents,
            checkpoint.k if row_top_k is None else row_top_k,
            checkpoint.group_sizes or tuple(group_sizes),
            rule="topk" if is_top_k else "threshold",
        )
    except ValueError as error:
        raise ArtifactError(f"{path}: is not a sparse autoencoder ({error}); is it another file?") from None
    scale = 1 / checkpoint.input_factor
    with torch.no_grad():
        for name in ("W_enc", "b_enc", "W_dec"):
            sae.get_parameter(name).copy_(getattr(checkpoint, name))
        # (factor x - b_dec) is our (x - mean) / scale, with b_dec added again to x_hat by the mean.
        if checkpoint.subtracts_b_dec:
            sae.mean.copy_(checkpoint.b_dec * scale)
        else:
            sae.b_dec.copy_(checkpoint.b_dec)
        sae.scale.fill_(scale)
        if not is_top_k and checkpoint.thresholds is not None:
            # Each library applies ReLU as well, so that a negative threshold is none.
            sae.thresholds.copy_(checkpoint.thresholds.clamp(min=0).expand(n_latents))
    return sae


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


def _reader(path: Path) -> tuple[Callable[[Path], _Checkpoint], Path]:
    """Return the function that reads what lies at a path, and the path to call it with."""
    if path.suffix == ".pth" and path.is_file():
        return _read_euclid, path
    if not path.is_dir():
        raise ArtifactError(f"{path}: expected a directory or a .pth file, found {_kind(path)}")
    known: dict[str, Callable[[Path], _Checkpoint]] = {
        "sae_weights.safetensors": _read_saelens,
        "sae.safetensors": _read_sparsify,
        "ae.pt": _read_dictionary_learning,
    }
    found = [(read, path) for name, read in known.items() if (path / name).is_file()]
    found += [(_read_euclid, file) for file in sorted(path.glob("*.pth"))]
    if len(found) != 1:
        names = ", ".join(sorted(file.name for file in path.iterdir())) or "nothing"
        raise ArtifactError(f"{path}: expected one of {', '.join(known)} or one *.pth, found {names}")
    return found[0]


def _kind(path: Path) -> str:
    return "another file" if path.exists() else "nothing"


def _read_saelens(directory: Path) -> _Checkpoint:
    path = directory / "cfg.json"
    config = _read_json(path)
    # Before 6.0 top-k was an activation function of the standard architecture, and these had other names and types.
    architecture = config.get("architecture", "standard")
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if activation == "topk":
        architecture, config = "topk", config | (config.get("activation_fn_kwargs") or {})
    elif activation != "relu":
        raise _unknown(path, "activation_fn", activation, ("relu", "topk"))
    details = (config.get("metadata") or {}).get("training_architecture_details") or {}

    d_in, n_latents = _integer(path, config, "d_in"), _integer(path, config, "d_sae")
    latent, coders = (n_latents,), {"W_enc": (d_in, n_latents), "W_dec": (n_latents, d_in), "b_dec": (d_in,)}
    file = directory / "sae_weights.safetensors"
    state = _read_safetensors(file)
    if "scaling_factor" in state and bool((state["scaling_factor"] == 1).all()):
        del state["scaling_factor"]  # older versions stored it unused
    common: dict[str, Any] = {
        "input_factor": _saelens_input_factor(path, config),
        "subtracts_b_dec": bool(config.get("apply_b_dec_to_input", True)),
        "group_sizes": _differences(config.get("matryoshka_widths") or details.get("matryoshka_widths"), n_latents),
    }
    match architecture:
        case "standard":
            tensors = _fitting(file, state, coders | {"b_enc": latent})
            return _Checkpoint(**tensors, **common, rule="threshold", thresholds=torch.zeros(()))
        case "topk":
            tensors = _fitting(file, state, coders | {"b_enc": latent})
            if config.get("rescale_acts_by_decoder_norm", False):
                tensors = _with_unit_atoms(tensors)
            return _Checkpoint(**tensors, **common, rule="top_k", k=_integer(path, config, "k"))
        case "batchtopk" | "matryoshka_batchtopk":
            tensors = _fitting(file, state, coders | {"b_enc": latent, "topk_threshold": ()})
            threshold = tensors.pop("topk_threshold")
            if not isinstance(rescale := config.get("rescale_acts_by_decoder_norm"), bool):
                raise ArtifactError(
                    f"{path}: expected rescale_acts_by_decoder_norm true or false, found {rescale!r}; versions of "
                    f"SAELens differ in what they then assume, so add what it was trained with"
                )
            if rescale:
                tensors = _with_unit_atoms(tensors)
            return _Checkpoint(
                **tensors,
                **common,
                rule="batch_top_k",
                k=_whole(config.get("k")),
                thresholds=threshold if threshold > 0 else None,  # starts at 0
            )
        case "jumprelu":
            is_log = "log_threshold" in state
            tensors = _fitting(
                file, state, coders | {"b_enc": latent, "log_threshold" if is_log else "threshold": latent}
            )
            thresholds = tensors.pop("log_threshold").exp() if is_log else tensors.pop("threshold")
            return _Checkpoint(**tensors, **common, rule="threshold", thresholds=thresholds, k=_whole(details.get("k")))
        case "gated":
            tensors = _fitting(file, state, coders | {"b_gate": latent, "b_mag": latent, "r_mag": latent})
            return _Checkpoint(**_as_jumprelu(tensors), **common, rule="threshold")
        case _:
            known = ("standard", "topk", "batchtopk", "matryoshka_batchtopk", "jumprelu", "gated")
            raise _unknown(path, "architecture", architecture, known)


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
    factor = _read_json(scaler).get("scaling_factor") if scaler.is_file() else None
    if not isinstance(factor, float | int) or not factor > 0:
        raise ArtifactError(
            f"{path}: normalize_activations = {setting!r}, and its factor is not in {scaler.name}; in SAELens call "
            f"fold_activation_norm_scaling_factor(factor) and save it again"
        )
    return float(factor)


def _read_dictionary_learning(directory: Path) -> _Checkpoint:
    path = directory / "config.json"
    config = _read_json(path).get("trainer")
    if not isinstance(config, dict):
        raise ArtifactError(f"{path}: expected the settings of a trainer under 'trainer', found {config!r}")
    d_in, n_latents = _integer(path, config, "activation_dim"), _integer(path, config, "dict_size")
    latent, buffers = (n_latents,), {"k": (), "threshold": ()}  # the first versions had no buffers
    linear = {"encoder.weight": (n_latents, d_in), "decoder.weight": (d_in, n_latents)}
    direct = {"W_enc": (d_in, n_latents), "b_enc": latent, "W_dec": (n_latents, d_in), "b_dec": (d_in,)}
    file = directory / "ae.pt"
    state = _read_torch(file)
    match config.get("dict_class"):
        case "AutoEncoder":
            tensors = _named_as_ours(_fitting(file, state, linear | {"encoder.bias": latent, "bias": (d_in,)}))
            return _Checkpoint(**_with_unit_atoms(tensors), rule="threshold", thresholds=torch.zeros(()))
        case "AutoEncoderNew":
            tensors = _named_as_ours(_fitting(file, state, linear | {"encoder.bias": latent, "decoder.bias": (d_in,)}))
            return _Checkpoint(**tensors, rule="threshold", thresholds=torch.zeros(()), subtracts_b_dec=False)
        case "GatedAutoEncoder":
            names = {"decoder_bias": (d_in,), "r_mag": latent, "gate_bias": latent, "mag_bias": latent}
            tensors = _named_as_ours(_fitting(file, state, linear | names))
            return _Checkpoint(**_as_jumprelu(tensors), rule="threshold")
        case "AutoEncoderTopK":
            # Its threshold is for a mode that its inference does not use by itself.
            names = {"encoder.bias": latent, "b_dec": (d_in,)}
            tensors = _named_as_ours(_fitting(file, state, linear | names, optional=buffers))
            tensors.pop("threshold", None)
            return _Checkpoint(**tensors | {"k": _same_k(path, config, tensors)}, rule="top_k")
        case "BatchTopKSAE":
            names = {"encoder.bias": latent, "b_dec": (d_in,)}
            tensors = _named_as_ours(_fitting(file, state, linear | names, optional=buffers))
            groups: tuple[int, ...] = ()
        case "MatryoshkaBatchTopKSAE" | "MatroyshkaBatchTopKSAE":  # as it was spelt in the first months
            names = {"group_sizes": (_count(state, "group_sizes"),)}
            tensors = _fitting(file, state, direct | names, optional=buffers)
            groups = tuple(int(size) for size in tensors.pop("group_sizes"))
        case "JumpReluAutoEncoder":
            tensors = _fitting(file, state, direct | {"threshold": latent})
            thresholds = tensors.pop("threshold")
            return _Checkpoint(**tensors, rule="threshold", thresholds=thresholds, subtracts_b_dec=False)
        case other:
            known = ("AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")
            raise _unknown(path, "dict_class", other, (*known, "JumpReluAutoEncoder", "GatedAutoEncoder"))
    threshold = tensors.pop("threshold", torch.tensor(-1.0))
    return _Checkpoint(
        **tensors | {"k": _same_k(path, config, tensors)},
        rule="batch_top_k",
        thresholds=threshold if threshold >= 0 else None,  # starts at -1
        group_sizes=groups,
    )


def _read_sparsify(directory: Path) -> _Checkpoint:
    path = directory / "cfg.json"
    config = _read_json(path)
    for name, expected in {"activation": "topk", "signed": False, "transcode": False, "skip_connection": False}.items():
        if config.get(name, expected) != expected:
            raise _unknown(path, name, config[name], (str(expected),))
    d_in = _integer(path, config, "d_in")
    if config.get("num_latents"):
        n_latents = _integer(path, config, "num_latents")
    else:
        n_latents = d_in * _integer(path, config, "expansion_factor")
    file = directory / "sae.safetensors"
    shapes = {"encoder.weight": (n_latents, d_in), "encoder.bias": (n_latents,), "W_dec": (n_latents, d_in)}
    tensors = _named_as_ours(_fitting(file, _read_safetensors(file), shapes | {"b_dec": (d_in,)}))
    return _Checkpoint(**tensors, rule="top_k", k=_integer(path, config, "k"))


def _read_euclid(path: Path) -> _Checkpoint:
    state = _read_torch(path)
    d_in, n_latents = _count(state, "b_dec"), _count(state, "b_enc")
    shapes = {"W_enc": (d_in, n_latents), "b_enc": (n_latents,), "W_dec": (n_latents, d_in), "b_dec": (d_in,)}
    tensors = _fitting(path, state, shapes | {"num_batches_not_active": (n_latents,)})
    tensors.pop("num_batches_not_active")
    return _Checkpoint(**tensors, rule="batch_top_k")


def _named_as_ours(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the tensors under our names; weights of linear layers, which are stored transposed, become as ours."""
    names = {"encoder.weight": "W_enc", "decoder.weight": "W_dec", "encoder.bias": "b_enc", "gate_bias": "b_gate"}
    names |= {"mag_bias": "b_mag", "bias": "b_dec", "decoder.bias": "b_dec", "decoder_bias": "b_dec"}
    return {
        names.get(name, name): value.T if value.ndim == 2 and "." in name else value for name, value in tensors.items()
    }


def _with_unit_atoms(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return tensors with atoms of length 1 and the same reconstructions: latents take over the atoms' lengths."""
    norms = tensors["W_dec"].norm(dim=1)
    return {
        **tensors,
        "W_enc": tensors["W_enc"] * norms,
        "b_enc": tensors["b_enc"] * norms,
        # The latent of an atom of length 0 is 0.
        "W_dec": tensors["W_dec"] / norms.where(norms > 0, 1)[:, None],
    }


def _as_jumprelu(gated: Mapping[str, Tensor]) -> dict[str, Any]:
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


def _same_k(path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
    """Return k, which dictionary_learning stores in two files that must agree; its first versions in the settings."""
    k = _integer(path, config, "k")
    if int(tensors.get("k", k)) != k:
        raise ArtifactError(f"{path}: expected k = {int(tensors['k'])} as in ae.pt, found {k}; which file is it of?")
    return k


def _differences(widths: Sequence[int] | None, n_latents: int) -> tuple[int, ...]:
    """Return group sizes from the sizes of nested dictionaries.

    As in SAELens, the whole dictionary is added where it is not the last of them.
    """
    if not widths:
        return ()
    whole = () if widths[-1] == n_latents else (n_latents,)
    return tuple(high - low for low, high in pairwise((0, *widths, *whole)))


def _integer(path: Path, config: Mapping[str, Any], name: str) -> int:
    value = _whole(config.get(name))
    if value is None or value < 1:
        raise ArtifactError(f"{path}: expected a positive integer {name}, found {config.get(name)!r}; is it complete?")
    return value


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int) or (isinstance(value, float) and value.is_integer()) else None


def _count(state: Mapping[str, Tensor], name: str) -> int:
    return state[name].numel() if name in state else 0


def _unknown(path: Path, setting: str, found: object, known: Sequence[str]) -> ArtifactError:
    return ArtifactError(f"{path}: {setting} = {found!r} cannot be imported; what can: {', '.join(known)}")


def _fitting(
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
        if tuple(state[name].shape) != shape:
            raise ArtifactError(
                f"{path}: expected {name} of shape {shape}, found {tuple(state[name].shape)}; "
                f"do the weights and the settings belong together?"
            )
        if not bool(state[name].isfinite().all()):
            raise ArtifactError(f"{path}: {name} holds NaN or infinite values; the training diverged, take another")
    return {name: state[name].float() for name in shapes}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: is not readable ({error}); the weights alone do not say what they are") from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: expected an object with settings, found {type(content).__name__}")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: is not a readable safetensors file ({error}); fetch it again") from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # Not torch's own message: it advises to run what is in the file.
        raise ArtifactError(
            f"{path}: is damaged, or holds Python objects, which could run code and are never loaded; "
            f"where you trust it, store its state_dict() alone"
        ) from None
    except Exception as error:  # noqa: BLE001
        # Fuzzed pickles raised ten kinds, struct.error and AssertionError among them.
        raise ArtifactError(f"{path}: is not a readable torch file ({error!r}); fetch it again") from None
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()):
        raise ArtifactError(f"{path}: expected a state_dict of tensors, found {type(state).__name__}")
    return state
