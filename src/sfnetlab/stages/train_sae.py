"""Stage train-sae: sparse autoencoders on the train rows of an embedding, one for every k and seed, in one pass."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sfnetlab.artifacts import CHECKPOINT, read_embedding
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.sae import SAESpec, sae_directory
from sfnetlab.runner import stage_main

if TYPE_CHECKING:
    pass


def build(spec: SAESpec, task: Task) -> Metrics:
    from sfnetlab.models.sae import save_sae
    from sfnetlab.training.sae.trainer import Rows, fit_standardisation, train_saes

    catalog, embedding = read_embedding(task.inputs["embedding"])
    split = catalog["split"].to_numpy()
    rows, valid = (Rows(embedding, np.flatnonzero(split == part)) for part in ("train", "valid"))
    settings = [spec.sae.recipe(k, seed) for k in spec.sae.k for seed in spec.seeds]
    saes, history = train_saes(
        rows,
        settings,
        epochs=spec.sae.epochs,
        batch_size=spec.sae.batch_size,
        standardisation=fit_standardisation(rows),
        valid=valid,
        device=task.device,
        checkpoint=task.work / CHECKPOINT,
        report=task.report,
        label=task.job.name,
        order_seed=0 if spec.sae.starts_at_random else spec.seeds[0],
    )
    for recipe, sae in zip(settings, saes, strict=True):
        directory = sae_directory(task.work, recipe.k, recipe.seed)
        directory.mkdir(exist_ok=True)
        save_sae(directory, sae)
    last = history[-len(saes) :]
    return {"n_saes": len(saes)} | {
        f"{name}_mean": float(np.mean([record[name] for record in last])) for name in ("train_fvu", "dead_fraction")
    }


main = partial(stage_main, "train-sae")

if __name__ == "__main__":
    raise SystemExit(main())
