"""Imports checkpoints of other libraries as our sparse autoencoder, and exports ours in SAELens' layout.

Names and formulas were read in the sources of each library; the readers say in which versions.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from sfnetlab.errors import ArtifactError
from sfnetlab.models.foreign import dictionary_learning, sae_lens, single_files, sparsify
from sfnetlab.models.foreign.common import Checkpoint
from sfnetlab.models.foreign.sae_lens import SAE_LENS_VERSION, export_saelens
from sfnetlab.models.sae import SparseAutoencoder

__all__ = ["SAE_LENS_VERSION", "export_saelens", "import_sae"]


def import_sae(path: Path, *, row_top_k: int | None = None, group_sizes: Sequence[int] = ()) -> SparseAutoencoder:
    """Return a checkpoint of another library, with the latents and reconstructions that its own inference gives.

    The files tell the library, and its own rules of each version since 2023 are followed:

    - `sae_weights.safetensors` with `cfg.json`: SAELens (standard, topk, batchtopk, matryoshka_batchtopk, jumprelu,
      gated).
    - `ae.pt` with `config.json`: dictionary_learning (the same kinds, as its `load_dictionary` gives them, which norms
      the atoms of an `AutoEncoder`).
    - `sae.safetensors` with `cfg.json`: sparsify (topk).
    - one `.pth`, `.pt` or `.npz`: the Euclid repository's MatryoshkaSAE (it takes embeddings standardised by column as
      in its training, by numbers that the file does not hold), BatchTopK and matryoshka_sae (`config.json` beside it
      says the kind), 1L-Sparse-Autoencoder, OpenAI's with ReLU, saev, overcomplete (linear encoders), Gemma Scope.

    Rows of W_dec keep the length they have there; 16-bit weights become float32. Names may have the prefixes of
    wrapped modules, and the state may lie in a checkpoint of a training. Nothing is unpickled but tensors.

    Parameters
    ----------
    path
        The directory, or the file of weights.
    row_top_k
        Read batch-top-k as top-k of each row, with this k. That is needed where the checkpoint holds no threshold, as
        Euclid's never does: its latents would otherwise depend on the other rows of a batch. Also where the files do
        not say which latents are active, as overcomplete's never do.
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
        if checkpoint.rule not in ("batch_top_k", "unknown"):
            raise ArtifactError(f"{path}: row_top_k is for batch-top-k, this is {checkpoint.rule}; leave it out")
        if checkpoint.k not in (None, row_top_k):
            raise ArtifactError(f"{path}: was trained with k = {checkpoint.k}, row_top_k is {row_top_k}; give its k")
    elif checkpoint.rule == "unknown":
        raise ArtifactError(
            f"{path}: which latents are active stands neither in the file nor beside it; give row_top_k if it is the k "
            f"largest of each row"
        )
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


def _reader(path: Path) -> tuple[Callable[[Path], Checkpoint], Path]:
    """Return the function that reads what lies at a path, and the path to call it with."""
    known: dict[str, Callable[[Path], Checkpoint]] = {
        sae_lens.WEIGHTS: sae_lens.read_saelens,
        sparsify.WEIGHTS: sparsify.read_sparsify,
        dictionary_learning.WEIGHTS: dictionary_learning.read_dictionary_learning,
    }
    if path.name in known and path.is_file():
        return known[path.name], path.parent
    if path.suffix in single_files.ENDINGS and path.is_file():
        return single_files.read_single_file, path
    endings = ", ".join(single_files.ENDINGS)
    if not path.is_dir():
        kind = "another file" if path.exists() else "nothing"
        raise ArtifactError(f"{path}: expected a directory or a file {endings}, found {kind}")
    files = {file.name for file in path.iterdir()}
    found = [(read, path) for name, read in known.items() if files & {name, f"{name}.index.json"}]
    if not found:
        names = sorted(name for name in files if Path(name).suffix in single_files.ENDINGS)
        found = [(single_files.read_single_file, path / name) for name in names]
    if len(found) != 1:
        names = ", ".join(sorted(files)) or "nothing"
        raise ArtifactError(f"{path}: expected one of {', '.join(known)} or one file {endings}, found {names}")
    return found[0]
