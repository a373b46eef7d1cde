"""Training of autoencoders on cutouts: a Gaussian likelihood of pixels, and what holds the latents to their prior."""

import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfnetlab.errors import DataError
from sfnetlab.models.vae import ConvVAE, Posterior, as_intensity
from sfnetlab.surveys.images import N_DIHEDRAL, channel_statistics
from sfnetlab.training.batches import Cutouts, to_device
from sfnetlab.training.learner import ModuleLearner
from sfnetlab.training.loop import START, Course, Record, Report, generator, train
from sfnetlab.training.network import embed_batches
from sfnetlab.training.optimizers import Optimization

BANDWIDTHS = (0.25, 1.0, 4.0)
"""Variances of the Gaussian kernels of the MMD, in units of the number of latents, which is half the mean squared
distance of two draws from the prior: posteriors near to each other and far from the prior both feel a slope."""
MAX_SCORED = 1000
"""Galaxies of a part on which an epoch is scored, at most."""
EVALUATION_BATCH = 256


class Terms(NamedTuple):
    """What losses are made of: means over images, scalars."""

    squared_error: Tensor
    """Summed over the values of an image, black 0 and white 1."""
    kl: Tensor
    """KL divergence from posterior to prior, nats an image; 0 for a plain autoencoder."""
    mmd: Tensor
    """`squared_mmd` of the latents."""


@dataclass(frozen=True, kw_only=True)
class VAELoss:
    """What an autoencoder minimises for each image of D values and d latents, in nats:

    D/2 log(2 pi s2) + squared error / (2 s2) + penalty.
    """

    objective: Literal["elbo", "mmd", "none"]
    """The penalty: the KL divergence; d / (2 s2) times the squared MMD (the weight that galaxy-autoencoders gave it);
    or nothing."""
    pixel_variance: float | None
    """s2; None: the mean squared error of each batch, a constant for the gradient."""

    def variance(self, terms: Terms, n_values: int) -> Tensor:
        """Return s2, a scalar, for images of `n_values` values."""
        if self.pixel_variance is not None:
            return terms.squared_error.new_tensor(self.pixel_variance)
        return (terms.squared_error / n_values).detach()

    def per_image(self, terms: Terms, variance: Tensor, vae: ConvVAE) -> Tensor:
        """Return the formula's value, a scalar, for this s2 and an autoencoder of this size."""
        precision = 1 / (2 * variance)
        likelihood = vae.n_values / 2 * torch.log(2 * math.pi * variance) + precision * terms.squared_error
        match self.objective:
            case "elbo":
                return likelihood + terms.kl
            case "mmd":
                return likelihood + precision * vae.n_latents * terms.mmd
            case "none":
                return likelihood


def train_vae(
    vae: ConvVAE,
    images: NDArray[np.uint8],
    train_rows: NDArray[np.integer],
    valid_rows: NDArray[np.integer],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    loss: VAELoss,
    label: str,
    seed: int,
    device: str,
    checkpoint: Path,
    report: Report,
) -> list[Record]:
    """Train an autoencoder in place and return the history; it is then on the device and ready to encode.

    AdamW without weight decay follows the one-cycle schedule, whose largest rate is `learning_rate`. Cutouts are
    flipped and turned at random. In each step every image has one draw of its latents, which the decoder and the MMD
    share.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width, 3)
        May be memory-mapped; square.
    label
        What progress and errors call the run.
    seed
        Seed of the order of rows, the augmentation and the draws of latents. The first weights do not depend on it.
    checkpoint
        Where the run's state is kept; a run that finds it goes on from there, see `loop.train`.
    report
        Gets the history after every epoch.

    Returns
    -------
    list of dict
        A record an epoch: `epoch` (from 1), `step`, `learning_rate`, `pixel_variance`, and with "train_" and "valid_"
        before them `loss_per_image` (see `VAELoss`), `loss_per_pixel` (nats a value), `squared_error_per_image`,
        `squared_error_per_pixel` (black 0 and white 1), `kl_per_image`, `mmd`. Both parts are scored alike, after the
        epoch: as many galaxies, not flipped, with one draw of the latents.

    Raises
    ------
    DataError
        If there are not two train and two valid rows, without which latents have no distribution.
    TrainingError, ArtifactError
        See `loop.train`.
    """
    scored = _scored_rows(train_rows, valid_rows, seed)
    vae.to(device=device, memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    if not checkpoint.exists():
        vae.start_at(channel_statistics(images, train_rows)[0])
    course = Course(
        n_rows=len(train_rows),
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
        checkpoint=checkpoint,
        settings=asdict(loss) | {"learning_rate": learning_rate, "n_latents": vae.n_latents},
        label=label,
        unit="image",
        smallest_batch=2,
    )
    learner = ModuleLearner(
        vae,
        course,
        Optimization(optimizer="adamw", schedule="one_cycle", learning_rate=learning_rate, weight_decay=0.0),
        rows=train_rows,
        read=partial(_read, vae, Cutouts.of(images, device)),
        batch_loss=partial(_batch_loss, vae, loss),
        scores=partial(_scores, vae, images, loss, scored=scored, seed=seed, device=device),
        reads_ahead=device != "cpu",
    )
    history = train(learner, course, report)
    vae.eval()
    return history


def kl_divergence(posterior: Posterior) -> Tensor:
    """Return the KL divergence in nats from each Gaussian posterior to the standard normal prior, (n,).

    References
    ----------
    Kingma & Welling 2014, arXiv:1312.6114, appendix B.
    """
    mean, log_variance = posterior
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2


def squared_mmd(latents: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy between latents (n, d) and the standard normal, a scalar.

    It is the mean over the kernels of `BANDWIDTHS`. The estimate is unbiased: for draws from the prior it is 0 on
    average whatever n is, so that values of different batches compare, and it can be slightly negative by chance. The
    prior's own averages of a Gaussian kernel are known, so no prior is drawn.

    References
    ----------
    Gretton et al. 2012, JMLR 13, 723, lemma 6; Rustamov 2019, arXiv:1901.03227, section 3 (closed form).
    """
    n, d = latents.shape
    off_diagonal = ~torch.eye(n, dtype=torch.bool, device=latents.device)
    squared_norms = latents.square().sum(dim=1)
    distances = squared_norms[:, None] + squared_norms - 2 * latents @ latents.T
    distances = distances[off_diagonal].clamp(min=0)
    total = latents.new_zeros(())
    for bandwidth in BANDWIDTHS:
        variance = bandwidth * d
        among_latents = torch.exp(-distances / (2 * variance)).mean()
        to_prior = (variance / (variance + 1)) ** (d / 2) * torch.exp(-squared_norms / (2 * (variance + 1)))
        among_prior = (variance / (variance + 2)) ** (d / 2)
        total = total + among_latents - 2 * to_prior.mean() + among_prior
    return total / len(BANDWIDTHS)


def encode_batches(
    vae: ConvVAE, images: NDArray[np.uint8], device: str, rows: NDArray[np.integer] | None = None
) -> NDArray[np.float32]:
    """Return the posterior means (n, n_latents) of cutouts, in the order of `rows` (default: all).

    Cutouts are uint8 (n, side, side, 3) and may be memory-mapped; errors are those of `embed_batches`.
    """
    return np.concatenate(list(embed_batches(vae.encode, images, rows, device=device)))


def decode_batches(vae: ConvVAE, latents: NDArray[np.floating], device: str) -> NDArray[np.float32]:
    """Return the cutouts (n, side, side, 3), black 0 and white 1, that latents (n, n_latents) stand for.

    Raises
    ------
    ValueError
        If the autoencoder is in training mode, where rows of a batch influence each other.
    """
    if vae.training:
        raise ValueError("the autoencoder is in training mode: call .eval() first")
    out = np.empty((len(latents), vae.image_size, vae.image_size, 3), np.float32)
    for start in range(0, len(latents), EVALUATION_BATCH):
        batch = torch.from_numpy(np.array(latents[start : start + EVALUATION_BATCH], dtype=np.float32))
        with torch.inference_mode():
            decoded = vae.decode(batch.to(device))
        out[start : start + len(batch)] = decoded.permute(0, 2, 3, 1).cpu().numpy()
    return out


def _scored_rows(
    train_rows: NDArray[np.integer], valid_rows: NDArray[np.integer], seed: int
) -> dict[str, NDArray[np.integer]]:
    """Return the rows of each part on which epochs are scored: as many of each, drawn at random, in the file's order.

    Raises
    ------
    DataError
        If a part has fewer than two rows.
    """
    parts = {"train": train_rows, "valid": valid_rows}
    for part, rows in parts.items():
        if len(rows) < 2:
            raise DataError(f"an autoencoder needs at least 2 {part} galaxies, got {len(rows)}; enlarge their share")
    n_scored = min(len(train_rows), len(valid_rows), MAX_SCORED)
    return {
        part: rows[np.sort(generator(seed, START, i).permutation(len(rows))[:n_scored])]
        for i, (part, rows) in enumerate(parts.items())
    }


def _read(vae: ConvVAE, cutouts: Cutouts, rows: NDArray[np.integer], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return cutouts of some rows, flipped and turned, and the noise of their latents, on the device."""
    ops = rng.integers(N_DIHEDRAL, size=len(rows))
    return cutouts.take(rows, ops), _noise(vae, len(rows), rng, cutouts.device)


def _batch_loss(vae: ConvVAE, loss: VAELoss, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch, and its terms (3,)."""
    batch, noise = inputs
    posterior = vae.posterior(batch)
    latents = _draw(posterior, noise)
    squared_error = _squared_errors(vae, batch, latents).mean()
    terms = Terms(squared_error, _divergence(vae, posterior).mean(), squared_mmd(latents))
    return loss.per_image(terms, loss.variance(terms, vae.n_values), vae), torch.stack(terms)


def _scores(
    vae: ConvVAE,
    images: NDArray[np.uint8],
    loss: VAELoss,
    terms: NDArray[np.float64],
    *,
    scored: dict[str, NDArray[np.integer]],
    seed: int,
    device: str,
) -> Record:
    """Return the pixel variance of an epoch, from its terms (3,), and the losses of both parts, see `train_vae`."""
    variance = loss.variance(Terms(*torch.from_numpy(terms)), vae.n_values)
    record: Record = {"pixel_variance": float(variance)}
    for part, rows in scored.items():
        # The draws of the latents are the same for both parts and after every epoch.
        found = _mean_terms(vae, images, rows, generator(seed, START, 2), device)
        per_image = float(loss.per_image(found, variance, vae))
        record |= {
            f"{part}_loss_per_image": per_image,
            f"{part}_loss_per_pixel": per_image / vae.n_values,
            f"{part}_squared_error_per_image": float(found.squared_error),
            f"{part}_squared_error_per_pixel": float(found.squared_error) / vae.n_values,
            f"{part}_kl_per_image": float(found.kl),
            f"{part}_mmd": float(found.mmd),
        }
    return record


def _mean_terms(
    vae: ConvVAE, images: NDArray[np.uint8], rows: NDArray[np.integer], rng: np.random.Generator, device: str
) -> Terms:
    """Return the terms of some rows as they lie in the store, on the CPU; the MMD is over all of them at once."""
    squared_error = kl = 0.0
    drawn = []
    for start in range(0, len(rows), EVALUATION_BATCH):
        with torch.inference_mode():
            batch = to_device(images[rows[start : start + EVALUATION_BATCH]], device)
            posterior = vae.posterior(batch)
            latents = _draw(posterior, _noise(vae, len(batch), rng, device))
            squared_error += float(_squared_errors(vae, batch, latents).double().sum())
            kl += float(_divergence(vae, posterior).double().sum())
            drawn.append(latents)
    mmd = squared_mmd(torch.cat(drawn)).cpu()
    return Terms(torch.tensor(squared_error / len(rows)), torch.tensor(kl / len(rows)), mmd)


def _noise(vae: ConvVAE, n: int, rng: np.random.Generator, device: str) -> Tensor:
    """Return standard normal numbers for the latents of n images, (n, n_latents): none for a plain autoencoder."""
    shape = (n if vae.is_variational else 0, vae.n_latents)
    return to_device(rng.standard_normal(shape, dtype=np.float32), device)


def _draw(posterior: Posterior, noise: Tensor) -> Tensor:
    """Return one draw of each image's latents, (n, n_latents): the code itself for a plain autoencoder."""
    return posterior.mean + torch.exp(posterior.log_variance / 2) * noise if len(noise) else posterior.mean


def _squared_errors(vae: ConvVAE, images: Tensor, latents: Tensor) -> Tensor:
    """Return the squared error of each reconstruction, (n,), summed over its values."""
    return (vae.decode(latents) - as_intensity(images)).square().sum(dim=(1, 2, 3))


def _divergence(vae: ConvVAE, posterior: Posterior) -> Tensor:
    """Return the KL divergence of each posterior, (n,): zeros for a plain autoencoder."""
    if not vae.is_variational:
        return posterior.mean.new_zeros(len(posterior.mean))
    return kl_divergence(posterior)
