"""Stage train-vae: an autoencoder of the cutouts, its posterior means as a feature table, and how well it reconstructs.

`quality.parquet` (PSNR, SSIM, FVU; of PCA of the pixels too, with as many components), `latents.parquet` (each latent).
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import CHECKPOINT, read_survey, write_dense_features, write_rows
from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.vae import VAE, VAESpec
from sfnetlab.metrics.images import ACTIVE_VARIANCE, latent_contributions, reconstruction_quality
from sfnetlab.runner import stage_main

if TYPE_CHECKING:
    from sfnetlab.models.vae import ConvVAE
    from sfnetlab.training.pixel_pca import PixelPCA

PARTS = ("train", "valid", "test")
MAX_SCORED = 1000
"""Galaxies of a part on which reconstructions are scored, drawn at random: more would tell no more."""
N_RESAMPLES = 1000
SEED = 0
"""Of resamples and of the galaxies that are scored: the same for every autoencoder."""


def build(spec: VAESpec, task: Task) -> Metrics:
    from sfnetlab.models.vae import ConvVAE, save_vae
    from sfnetlab.training.pixel_pca import fit_pixel_pca, save_pixel_pca
    from sfnetlab.training.vae import VAELoss, encode_batches, train_vae

    survey = read_survey(task.inputs["survey"])
    images = survey.cutouts
    if images.shape[1] != images.shape[2]:
        raise DataError(
            f"features {spec.vae.name!r}: autoencoders flip and turn cutouts, which must be square; "
            f"these have {images.shape[2]} x {images.shape[1]} px: set survey.crop"
        )
    split = survey.catalog["split"].to_numpy()
    rows = {part: np.flatnonzero(split == part) for part in PARTS}
    pca = fit_pixel_pca(images, rows["train"], spec.vae.n_latents, seed=SEED)
    vae = ConvVAE(images.shape[1], spec.vae.n_latents, spec.vae.objective != "none", spec.seed)
    train_vae(
        vae,
        images,
        rows["train"],
        rows["valid"],
        epochs=spec.vae.epochs,
        batch_size=spec.vae.batch_size,
        learning_rate=spec.vae.learning_rate,
        loss=VAELoss(objective=spec.vae.objective, pixel_variance=spec.vae.pixel_variance),
        label=task.job.name,
        seed=spec.seed,
        device=task.device,
        checkpoint=task.work / CHECKPOINT,
        report=task.report,
    )
    save_vae(task.work, vae)
    save_pixel_pca(task.work, pca)
    codes = encode_batches(vae, images, task.device)
    write_rows(task.work, survey.catalog)
    write_dense_features(task.work, codes)

    rng = np.random.default_rng(SEED)
    scored = {part: np.sort(rng.permutation(part_rows)[:MAX_SCORED]) for part, part_rows in rows.items()}
    quality = pd.concat(
        [
            _quality(spec.vae, vae, pca, images[part_rows], codes[part_rows], task.device).assign(split=part)
            for part, part_rows in scored.items()
        ],
        ignore_index=True,
    ).assign(features=spec.vae.name, n_latents=spec.vae.n_latents, seed=spec.seed)
    quality[QUALITY].to_parquet(task.work / "quality.parquet", index=False)
    latents = _latents(vae, pca, codes[rows["train"]], codes[scored["test"]], images[scored["test"]], task.device)
    latents.to_parquet(task.work / "latents.parquet", index=False)

    fvus = quality[(quality["metric"] == "fvu") & (quality["split"] == "test")].set_index("method")["value"]
    return {
        "fvu_test": float(fvus["autoencoder"]),
        "fvu_pca_test": float(fvus["pca"]),
        "n_active": int(latents["is_active"].sum()),
    }


QUALITY = [
    "features", "objective", "n_latents", "seed", "split", "metric", "value", "low", "high", "n",
]  # fmt: skip


def _quality(
    settings: VAE,
    vae: "ConvVAE",
    pca: "PixelPCA",
    images: NDArray[np.uint8],
    codes: NDArray[np.float32],
    device: str,
) -> pd.DataFrame:
    """Scores of the autoencoder, from its posterior means, and of PCA on some cutouts."""
    from sfnetlab.training.vae import decode_batches

    x = images.astype(np.float32) / 255
    reconstructions = {"autoencoder": decode_batches(vae, codes, device), "pca": pca.reconstruct(x)}
    quality = reconstruction_quality(x, reconstructions, pca.mean, reference="pca", n_resamples=N_RESAMPLES, seed=SEED)
    return quality.assign(objective=quality["method"].replace("autoencoder", settings.objective))


def _latents(
    vae: "ConvVAE",
    pca: "PixelPCA",
    train_codes: NDArray[np.float32],
    codes: NDArray[np.float32],
    images: NDArray[np.uint8],
    device: str,
) -> pd.DataFrame:
    """A row a latent: mean and variance of its posterior means over train galaxies, whether it is active, and what
    the reconstruction of some test galaxies loses without it."""
    from sfnetlab.training.vae import decode_batches

    mean, variance = train_codes.mean(axis=0, dtype=np.float64), train_codes.var(axis=0, dtype=np.float64)
    x = images.astype(np.float32) / 255
    contributions = latent_contributions(lambda latents: decode_batches(vae, latents, device), codes, mean, x, pca.mean)
    return contributions.assign(mean=mean, variance=variance, is_active=variance > ACTIVE_VARIANCE)


main = partial(stage_main, "train-vae")

if __name__ == "__main__":
    raise SystemExit(main())
