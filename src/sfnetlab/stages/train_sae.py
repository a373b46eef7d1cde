"""Stage train-sae: sparse autoencoders on the train rows of an embedding, one for every k and seed, in one pass.

Those that another library trained are read from its checkpoints instead.
"""

import logging
from functools import partial

import numpy as np

from sfnetlab.artifacts import CHECKPOINT, read_embedding
from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.sae import ImportSAESpec, SAESpec, sae_directory
from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained
from sfnetlab.metrics.tables import evenly
from sfnetlab.runner import stage_main

log = logging.getLogger(__name__)

CHECKED_ROWS = 2**14
"""Train rows, at most, on which it is looked at whether a checkpoint is of this embedding."""


def build(spec: SAESpec, task: Task) -> Metrics:
    return _import(spec, task) if isinstance(spec, ImportSAESpec) else _train(spec, task)


def _train(spec: SAESpec, task: Task) -> Metrics:
    from sfnetlab.models.sae import save_sae
    from sfnetlab.training.sae.rows import Rows, uneven_spread, without_far_rows
    from sfnetlab.training.sae.trainer import fit_standardisation, train_saes

    catalog, embedding = read_embedding(task.inputs["embedding"])
    split = catalog["split"].to_numpy()
    rows, valid = (Rows(embedding, np.flatnonzero(split == part)) for part in ("train", "valid"))
    all_rows, standardize = rows, spec.sae.standardize
    rows, valid = (without_far_rows(part, spec.sae.max_distance, standardize) for part in (rows, valid))
    if n_far := len(all_rows) - len(rows):
        ids = catalog["id_str"].to_numpy()[np.setdiff1d(all_rows.chosen, rows.chosen)[:5]]
        far = f"{n_far} of {len(all_rows)} train rows (first: {', '.join(ids)})"
        log.warning("%s: max_distance = %g leaves out %s", task.job.name, spec.sae.max_distance, far)
    standardisation = fit_standardisation(rows, standardize=standardize)
    for message in uneven_spread(rows, standardize, lambda row: catalog["id_str"].iloc[row]):
        log.warning("%s: %s", task.job.name, message)
    settings = [spec.sae.recipe(k, seed) for k in spec.sae.k for seed in spec.seeds]
    saes, history = train_saes(
        rows,
        settings,
        epochs=spec.sae.epochs,
        batch_size=spec.sae.batch_size,
        standardisation=standardisation,
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
    return {"n_saes": len(saes), "n_rows_left_out": n_far} | {
        f"{name}_mean": float(np.mean([record[name] for record in last])) for name in ("train_fvu", "dead_fraction")
    }


def _import(spec: ImportSAESpec, task: Task) -> Metrics:
    from sfnetlab.models.foreign import import_sae
    from sfnetlab.models.sae import save_sae

    catalog, embedding = read_embedding(task.inputs["embedding"])
    x = np.asarray(embedding[evenly(np.flatnonzero(catalog["split"].to_numpy() == "train"), CHECKED_ROWS)])
    (k,) = spec.sae.k
    fvus = []
    for seed, path in zip(spec.seeds, spec.paths, strict=True):
        sae = import_sae(path, row_top_k=k if spec.row_top_k else None)
        if sae.d_in != x.shape[1]:
            raise DataError(
                f"{path}: expected an SAE of the {x.shape[1]} columns of {spec.sae.on!r}, found one of {sae.d_in}; "
                f"name in `on` the embedding that it was trained on"
            )
        if sae.k not in (None, k):
            raise DataError(f"{path}: expected k = {k} as in the settings, found {sae.k}; write k = [{sae.k}]")
        sae.k = k
        fvus.append(fraction_of_variance_unexplained(x, sae.reconstruct(x)))
        if fvus[-1] > 1:
            log.warning(
                "%s: %s reconstructs train rows worse than their mean does (FVU %.3g): was it trained on this "
                "embedding, in the same units?",
                *(task.job.name, path, fvus[-1]),
            )
        directory = sae_directory(task.work, k, seed)
        directory.mkdir()
        save_sae(directory, sae)
    return {"n_saes": len(fvus), "train_fvu_mean": float(np.mean(fvus))}


main = partial(stage_main, "train-sae")

if __name__ == "__main__":
    raise SystemExit(main())
