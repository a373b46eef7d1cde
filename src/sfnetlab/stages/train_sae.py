"""Stage train-sae: sparse autoencoders on the train rows of an embedding, one for every k and seed, in one pass."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sfnetlab.artifacts import CHECKPOINT, Metrics, read_embedding
from sfnetlab.plan import SAESpec, sae_directory, starts_at_random
from sfnetlab.runner import Task, stage_main
from sfnetlab.schema import NullSAE

if TYPE_CHECKING:
    from sfnetlab.training.sae.settings import SAESettings


def build(spec: SAESpec, task: Task) -> Metrics:
    from sfnetlab.models.sae import save_sae
    from sfnetlab.training.sae.trainer import Rows, fit_standardisation, train_saes

    catalog, embedding = read_embedding(task.inputs["embedding"])
    split = catalog["split"].to_numpy()
    rows, valid = (Rows(embedding, np.flatnonzero(split == part)) for part in ("train", "valid"))
    settings = [sae_settings(spec, k, seed) for k in spec.sae.k for seed in spec.seeds]
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
        order_seed=0 if starts_at_random(spec.sae) else spec.seeds[0],
    )
    for own, sae in zip(settings, saes, strict=True):
        directory = sae_directory(task.work, own.k, own.seed)
        directory.mkdir(exist_ok=True)
        save_sae(directory, sae)
    last = history[-len(saes) :]
    return {"n_saes": len(saes)} | {
        f"{name}_mean": float(np.mean([record[name] for record in last])) for name in ("train_fvu", "dead_fraction")
    }


def sae_settings(spec: SAESpec, k: int, seed: int) -> "SAESettings":
    """What the trainer is told about one SAE of a [[features]] table."""
    from sfnetlab.training.sae.settings import Frozen, SAESettings, euclid_groups

    if isinstance(spec.sae, NullSAE):
        arms: dict[str, Frozen] = {
            "frozen_decoder": "decoder",
            "frozen_encoder": "encoder",
            "random_dictionary": "both",
        }
        n_latents, frozen = spec.sae.n_latents, arms[spec.sae.arm]
        return SAESettings(variant="topk", n_latents=n_latents, k=k, seed=seed, frozen=frozen)
    groups = spec.sae.group_sizes
    if spec.sae.variant == "matryoshka" and not groups:
        groups = euclid_groups(spec.sae.n_latents)
    return SAESettings(
        variant=spec.sae.variant,
        n_latents=spec.sae.n_latents,
        k=k,
        seed=seed,
        group_sizes=groups,
        selection=spec.sae.selection,
        learning_rate=spec.sae.learning_rate,
        auxk=spec.sae.auxk,
        start="random" if starts_at_random(spec.sae) else "centroids",
    )


main = partial(stage_main, "train-sae")

if __name__ == "__main__":
    raise SystemExit(main())
