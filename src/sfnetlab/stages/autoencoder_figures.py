"""What make-figures draws of autoencoders: reconstructions, traversals, walks, samples, quality and latents."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.artifacts import SurveyTable, read_features
from sfnetlab.figures.autoencoder_training import plot_autoencoder_training
from sfnetlab.figures.contact_sheet import plot_contact_sheet
from sfnetlab.figures.latent_traversal import plot_latent_traversal
from sfnetlab.figures.latent_walk import plot_latent_walk, walk_gif
from sfnetlab.figures.reconstruction_quality import plot_latent_variances, plot_reconstruction_quality
from sfnetlab.figures.reconstructions import plot_image_rows
from sfnetlab.interpret.latents import TRAVERSED_SIGMAS, traversal, walk
from sfnetlab.methods.vae import VAESpec
from sfnetlab.metrics.images import ACTIVE_VARIANCE

if TYPE_CHECKING:
    from sfnetlab.models.vae import ConvVAE

N_GALAXIES = 8
N_TRAVERSED = 8
N_WAYPOINTS = 6
N_STEPS = 22
N_SAMPLES = 64
GIF_SIDE_PX = 320
SEED = 0
"""Of the galaxies and prior samples shown."""
OBJECTIVES = {"elbo": "ELBO", "mmd": "MMD", "none": "no prior"}


def autoencoder_figures(
    made: list[tuple[VAESpec, Path]], survey: SurveyTable, work: Path
) -> Iterator[tuple[str, Figure]]:
    """Figures of all autoencoders and, of the first seed of each, of its latents; walks are GIFs in `work` too."""
    yield "reconstruction_quality", plot_reconstruction_quality(_qualities(made))
    yield "autoencoder_training", plot_autoencoder_training(_histories(made))
    first: dict[str, tuple[VAESpec, Path]] = {}
    for spec, path in made:
        first.setdefault(spec.vae.name, (spec, path))
    for n_latents in sorted({spec.vae.n_latents for spec, _ in first.values()}):
        own = [run for run in first.values() if run[0].vae.n_latents == n_latents]
        yield f"reconstructions-d{n_latents}", _reconstructions(own, survey)
        tables = [pd.read_parquet(path / "latents.parquet").assign(features=spec.vae.name) for spec, path in own]
        yield f"latent_variances-d{n_latents}", plot_latent_variances(pd.concat(tables), ACTIVE_VARIANCE)
    for name, (spec, path) in first.items():
        yield from _latent_figures(name, spec, path, survey, work)


def _latent_figures(
    name: str, spec: VAESpec, path: Path, survey: SurveyTable, work: Path
) -> Iterator[tuple[str, Figure]]:
    from sfnetlab.models.vae import load_vae

    vae = load_vae(path)
    latents = pd.read_parquet(path / "latents.parquet")
    shown = latents.sort_values("variance", ascending=False).head(N_TRAVERSED)
    codes = traversal(latents["mean"].to_numpy(), np.sqrt(latents["variance"].to_numpy()), shown["latent"].to_numpy())
    images = _decoded(vae, codes.reshape(-1, vae.n_latents)).reshape(*codes.shape[:2], *survey.cutouts.shape[1:])
    yield f"latent_traversal-{name}", plot_latent_traversal(images, TRAVERSED_SIGMAS, shown, survey.pixel_scale_arcsec)

    ids = _shown_ids(survey, N_WAYPOINTS)
    waypoints = np.asarray(read_features(path).of(ids))
    frames = _decoded(vae, walk(waypoints, N_STEPS))
    yield f"latent_walk-{name}", plot_latent_walk(frames, N_WAYPOINTS)
    (work / f"latent_walk-{name}.gif").write_bytes(walk_gif(frames, GIF_SIDE_PX))
    if spec.vae.objective != "none":  # without a prior there is nothing to draw from
        drawn = np.random.default_rng(SEED).standard_normal((N_SAMPLES, vae.n_latents))
        samples = plot_contact_sheet(_decoded(vae, drawn), [""] * N_SAMPLES, survey.pixel_scale_arcsec)
        yield f"prior_samples-{name}", samples


def _reconstructions(made: list[tuple[VAESpec, Path]], survey: SurveyTable) -> Figure:
    from sfnetlab.models.vae import load_vae
    from sfnetlab.training.pixel_pca import load_pixel_pca

    ids = _shown_ids(survey, N_GALAXIES)
    places = pd.Series(np.arange(len(survey.catalog)), index=survey.catalog["id_str"])[ids].to_numpy()
    images = np.asarray(survey.cutouts[places])
    rows = {"input": images}
    for spec, path in made:
        codes = np.asarray(read_features(path).of(ids))
        rows[f"{spec.vae.name}\n{OBJECTIVES[spec.vae.objective]}, d = {spec.vae.n_latents}"] = _decoded(
            load_vae(path), codes
        )
    pca = load_pixel_pca(made[0][1])
    rows[f"PCA of pixels\nd = {len(pca.components)}"] = _as_bytes(pca.reconstruct(images.astype(np.float32) / 255))
    return plot_image_rows(rows, survey.pixel_scale_arcsec)


def _shown_ids(survey: SurveyTable, n: int) -> "pd.Series[str]":
    """Some test galaxies, the same in every figure."""
    ids = survey.catalog.loc[survey.catalog["split"] == "test", "id_str"]
    return ids.iloc[np.random.default_rng(SEED).permutation(len(ids))[:n]]


def _decoded(vae: "ConvVAE", codes: NDArray[np.floating]) -> NDArray[np.uint8]:
    from sfnetlab.training.vae import decode_batches

    return _as_bytes(decode_batches(vae, codes, "cpu"))


def _as_bytes(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.rint(images * 255).astype(np.uint8)


def _qualities(made: list[tuple[VAESpec, Path]]) -> pd.DataFrame:
    """Test scores of every autoencoder, and of the PCA of each number of latents once."""
    parts = []
    for _, path in made:
        quality = pd.read_parquet(path / "quality.parquet")
        is_pca = quality["objective"] == "pca"
        parts.append(quality[~is_pca].assign(kind="vae"))
        parts.append(quality[is_pca].assign(kind="pca", features="PCA of pixels", seed=None))
    table = pd.concat([part.astype({"seed": "Int64"}) for part in parts], ignore_index=True)
    return table[table["split"] == "test"].drop_duplicates(["features", "n_latents", "seed", "metric"])


def _histories(made: list[tuple[VAESpec, Path]]) -> pd.DataFrame:
    """Of the first seed of each."""
    parts: dict[str, pd.DataFrame] = {}
    for spec, path in made:
        if spec.vae.name not in parts:
            history = pd.read_json(path / "progress.jsonl", lines=True)
            parts[spec.vae.name] = history.assign(features=spec.vae.name)
    return pd.concat(parts.values(), ignore_index=True)
