"""Stage encode-embeddings: the codes of every galaxy in the dictionary of one sparse autoencoder, and what it is like.

Beside the feature table: `reconstruction.parquet` (FVU and L0 of each nested dictionary), `latents.parquet` (a row a
latent, judged on train rows), `l0.parquet` (of test rows), `spectrum.parquet` (of the atoms).
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import read_embedding, read_features, write_csr_blocks, write_rows
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.sae import EncodeSpec, sae_directory
from sfnetlab.metrics.dictionary import decoder_spectrum, describe_latents, fvu_of_blocks, l0_distribution
from sfnetlab.metrics.reconstruction import robust_fvus
from sfnetlab.metrics.sparsity import l0
from sfnetlab.metrics.tables import FeatureMatrix, columns_of, evenly, rows_of
from sfnetlab.runner import stage_main

if TYPE_CHECKING:
    from sfnetlab.models.sae import SparseAutoencoder

BLOCK_ROWS = 4096
ROBUST_ROWS = 2**17
"""Medians over test rows, and FVUs by column, are of so many of them at most, spread evenly over all."""


def build(spec: EncodeSpec, task: Task) -> Metrics:
    from sfnetlab.models.sae import load_sae

    catalog, embedding = read_embedding(task.inputs["embedding"])
    sae = load_sae(sae_directory(task.inputs["saes"], spec.k, spec.seed)).to(task.device)
    write_rows(task.work, catalog)
    write_csr_blocks(task.work, sae.encode_blocks(embedding, spec.codes), sae.n_latents)
    latents = read_features(task.work).values

    split = catalog["split"].to_numpy()
    parts = {part: np.flatnonzero(split == part) for part in ("train", "valid", "test")}
    table = []
    for part, chosen in parts.items():
        fvus = fvu_of_blocks(_nested_reconstructions(sae, embedding, latents, chosen))
        for prefix, fvu in zip(sae.prefixes, fvus, strict=True):
            n_active = _n_active(latents, chosen, prefix) / len(chosen)
            which = {"k": spec.k, "split": part, "n_latents": prefix, "is_whole": prefix == sae.n_latents}
            table.append(which | {"fvu": fvu, "l0": n_active})
    reconstruction = pd.DataFrame(table)
    reconstruction.to_parquet(task.work / "reconstruction.parquet", index=False)

    described = describe_latents(latents, sae.W_dec.numpy(force=True), parts["train"])
    described.to_parquet(task.work / "latents.parquet", index=False)
    spectrum = decoder_spectrum(sae.W_dec.numpy(force=True))
    spectra = pd.DataFrame({"singular_value": spectrum.singular_values}).rename_axis("component").reset_index()
    spectra.to_parquet(task.work / "spectrum.parquet", index=False)
    l0_distribution(rows_of(latents, parts["test"])).to_parquet(task.work / "l0.parquet", index=False)
    whole = reconstruction[reconstruction["is_whole"]].set_index("split")[["fvu", "l0"]].T.to_dict()
    test = evenly(parts["test"], ROBUST_ROWS)
    robust = robust_fvus(np.asarray(embedding[test]), sae.decode_csr(rows_of(latents, test)))
    return {f"{name}_{part}": whole[part][name] for part in parts for name in ("fvu", "l0")} | {
        **{f"{name}_test": value for name, value in robust.items() if np.isfinite(value)},
        "dead_fraction": float(described["is_dead"].mean()),
        "dense_fraction": float(described["is_dense"].mean()),
        "effective_rank": spectrum.effective_rank,
    }


def _n_active(latents: FeatureMatrix, chosen: NDArray[np.intp], prefix: int) -> int:
    """How many of the first latents are active, over all chosen rows."""
    first = np.arange(prefix)
    blocks = (chosen[start : start + BLOCK_ROWS] for start in range(0, len(chosen), BLOCK_ROWS))
    return sum(int(l0(columns_of(rows_of(latents, rows), first)).sum()) for rows in blocks)


def _nested_reconstructions(
    sae: "SparseAutoencoder", embedding: NDArray[np.float32], latents: FeatureMatrix, chosen: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Rows of the embedding and what each nested dictionary makes of them, (n, len(prefixes), d_in), in blocks."""
    for start in range(0, len(chosen), BLOCK_ROWS):
        rows = chosen[start : start + BLOCK_ROWS]
        codes = rows_of(latents, rows)
        nested = [sae.decode_csr(columns_of(codes, np.arange(prefix))) for prefix in sae.prefixes]
        yield np.asarray(embedding[rows]), np.stack(nested, axis=1)


main = partial(stage_main, "encode-embeddings")

if __name__ == "__main__":
    raise SystemExit(main())
