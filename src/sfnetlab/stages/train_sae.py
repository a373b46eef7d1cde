"""Stage train-sae: a sparse autoencoder on the train rows of an embedding, and its codes for every row."""

from functools import partial

import numpy as np
import pandas as pd

from sfnetlab.artifacts import CHECKPOINT, Metrics, read_features, write_csr_features, write_rows
from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained
from sfnetlab.metrics.sparsity import activation_frequency, dead_fraction, l0
from sfnetlab.plan import SAESpec
from sfnetlab.runner import Task, stage_main


def build(spec: SAESpec, task: Task) -> Metrics:
    from sfnetlab.models.sae import save_sae
    from sfnetlab.training.sae import train_sae

    rows, embedding = read_features(task.inputs["embedding"])
    split = rows["split"].to_numpy()
    sae, _ = train_sae(
        np.asarray(embedding[np.flatnonzero(split == "train")]),
        spec.sae,
        spec.k,
        seed=spec.seed,
        device=task.device,
        checkpoint=task.work / CHECKPOINT,
        report=task.report,
    )
    save_sae(task.work, sae)
    codes = sae.encode_csr(embedding)
    write_rows(task.work, rows)
    write_csr_features(task.work, codes)

    table = []
    for part in ("train", "valid", "test"):
        chosen = np.flatnonzero(split == part)
        x = np.asarray(embedding[chosen])
        fvu = fraction_of_variance_unexplained(x, sae.reconstruct(x))
        table.append({"k": spec.k, "split": part, "fvu": fvu, "l0": float(l0(codes[chosen]).mean())})
    reconstruction = pd.DataFrame(table)
    reconstruction.to_parquet(task.work / "reconstruction.parquet", index=False)
    facts = {f"fvu_{row.split}": float(row.fvu) for row in reconstruction.itertuples()}
    return facts | {"dead_fraction": dead_fraction(activation_frequency(codes[np.flatnonzero(split == "train")]))}


main = partial(stage_main, "train-sae")

if __name__ == "__main__":
    raise SystemExit(main())
