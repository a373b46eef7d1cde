"""Stage train-sae: a sparse autoencoder on the train rows of an embedding, and its codes for every row."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from sfnetlab.artifacts import CHECKPOINT, Metrics, read_embedding, write_csr_features, write_rows
from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained
from sfnetlab.metrics.sparsity import activation_frequency, dead_fraction, l0
from sfnetlab.metrics.tables import rows_of
from sfnetlab.plan import SAESpec
from sfnetlab.runner import Task, stage_main


def build(spec: SAESpec, task: Task) -> Metrics:
    from sfnetlab.models.sae import save_sae
    from sfnetlab.training.sae import train_sae

    rows, embedding = read_embedding(task.inputs["embedding"])
    split = rows["split"].to_numpy()
    train = np.flatnonzero(split == "train")
    sae, _ = train_sae(
        np.asarray(embedding[train]),
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

    table: list[dict[str, Any]] = []
    for part in ("train", "valid", "test"):
        chosen = np.flatnonzero(split == part)
        x = np.asarray(embedding[chosen])
        fvu = fraction_of_variance_unexplained(x, sae.reconstruct(x))
        table.append({"k": spec.k, "split": part, "fvu": fvu, "l0": float(l0(rows_of(codes, chosen)).mean())})
    pd.DataFrame(table).to_parquet(task.work / "reconstruction.parquet", index=False)
    fvu_by_part = {f"fvu_{row['split']}": row["fvu"] for row in table}
    return fvu_by_part | {"dead_fraction": dead_fraction(activation_frequency(rows_of(codes, train)))}


main = partial(stage_main, "train-sae")

if __name__ == "__main__":
    raise SystemExit(main())
