"""Training of autoencoders on cutouts: a Gaussian likelihood of pixels, and what holds the latents to their prior."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfnetlab.errors import DataError
from sfnetlab.methods.vae import VAE
from sfnetlab.models.vae import ConvVAE, Posterior, as_intensity
from sfnetlab.settings import Training
from sfnetlab.surveys.images import channel_statistics, random_dihedral
from sfnetlab.training.loop import AUGMENTATION, START, Course, Record, Report, generator, train
from sfnetlab.training.network import embed_batches
from sfnetlab.training.optimizers import learning_rate_at, make_optimizer

BANDWIDTHS = (0.25, 1.0, 4.0)
"""Of the Gaussian kernels, their variances in units of the number of latents, which is half the mean squared distance
of two draws from the prior: posteriors near to each other and far from the prior both feel a slope."""
MAX_EVALUATED = 1000
"""Galaxies of a part on which an epoch is scored."""
EVALUATION_BATCH = 256


class Terms(NamedTuple):
    """What losses are made of, as means over images: scalars."""

    squared_error: Tensor
    """Summed over the values of an image, black 0 and white 1."""
    kl: Tensor
    """Nats an image from posterior to prior; 0 for a plain autoencoder."""
    mmd: Tensor
    """`squared_mmd` of the latents."""


def train_vae(
    vae: ConvVAE,
    images: NDArray[np.uint8],
    train_rows: NDArray[np.integer],
    valid_rows: NDArray[np.integer],
    settings: VAE,
    *,
    seed: int,
    device: str,
    checkpoint: Path,
    report: Report,
) -> list[Record]:
    """Train an autoencoder in place; afterwards it is on the device and ready to encode.

    Adam and the one-cycle schedule minimise, for each image of D values and d latents, in nats,

        D/2 log(2 pi s2) + squared error / (2 s2) + penalty,

    where the penalty is the KL divergence ("elbo"), d / (2 s2) times the squared MMD ("mmd", the weight that
    galaxy-autoencoders gave it), or nothing. s2 is `settings.pixel_variance`, or else the mean squared error of each
    batch, a constant for the gradient. Cutouts are flipped and turned at random. Every image has one draw of its
    latents a step, which the decoder and the MMD share.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width, 3)
        May be memory-mapped; square.
    seed
        Of the order of rows, the augmentation and the draws of latents. The weights are their maker's.
    checkpoint
        Where the run's state is kept; a run that finds it goes on from there, see `loop.train`.
    report
        Gets the history after every epoch.

    Returns
    -------
    list of dict
        A record an epoch: `epoch` (from 1), `step`, `learning_rate`, `pixel_variance`, and with "train_" and "valid_"
        before them `loss_per_image` (the formula above), `loss_per_pixel` (nats a value),
        `squared_error_per_image`, `squared_error_per_pixel` (black 0 and white 1), `kl_per_image`, `mmd`. Both parts
        are scored alike, after the epoch: as many galaxies, not flipped, with one draw of the latents.

    Raises
    ------
    DataError
        If there are not two train and two valid rows, without which latents have no distribution.
    TrainingError, ArtifactError
        See `loop.train`.
    """
    for part, rows in (("train", train_rows), ("valid", valid_rows)):
        if len(rows) < 2:
            raise DataError(f"an autoencoder needs at least 2 {part} galaxies, got {len(rows)}; enlarge their share")
    vae.to(device=device, memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    if not checkpoint.exists():
        vae.start_at(channel_statistics(images, train_rows)[0])
    course = Course(
        n_rows=len(train_rows),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=seed,
        checkpoint=checkpoint,
        settings=asdict(settings) | {"seed": seed, "n_train": len(train_rows)},
        label=f"{settings.name} seed={seed}",
        unit="image",
        smallest_batch=2,
    )
    learner = _VAELearner(vae, images, train_rows, valid_rows, settings, course, device)
    history = train(learner, course, report)
    vae.eval()
    return history


def kl_divergence(posterior: Posterior) -> Tensor:
    """Nats from each Gaussian posterior to the standard normal prior, (n,); Kingma & Welling 2014, appendix B."""
    mean, log_variance = posterior
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2


def squared_mmd(latents: Tensor) -> Tensor:
    """Squared maximum mean discrepancy between latents (n, d) and the standard normal, mean over `BANDWIDTHS`.

    Unbiased: 0 on average for draws from the prior whatever n is, so that values of different batches compare, and
    slightly negative by chance. The prior's own averages of a Gaussian kernel are known, so no prior is drawn.

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
    """Posterior means (n, n_latents) of cutouts, uint8 (n, side, side, 3), perhaps memory-mapped; default: all rows."""
    return np.concatenate(list(embed_batches(vae.encode, images, rows, device=device)))


def decode_batches(vae: ConvVAE, latents: NDArray[np.floating], device: str) -> NDArray[np.float32]:
    """Cutouts (n, side, side, 3), black 0 and white 1, of latents (n, n_latents).

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


class _VAELearner:
    at_once = 1

    def __init__(
        self,
        vae: ConvVAE,
        images: NDArray[np.uint8],
        train_rows: NDArray[np.integer],
        valid_rows: NDArray[np.integer],
        settings: VAE,
        course: Course,
        device: str,
    ) -> None:
        self.vae = vae.train()
        self.images, self.train_rows = images, train_rows
        self.settings, self.course, self.device = settings, course, device
        self.optimization = Training(
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=0.0,
        )
        self.optimizer = make_optimizer(vae, self.optimization)
        n_evaluated = min(len(train_rows), len(valid_rows), MAX_EVALUATED)
        self.evaluated = {
            part: rows[np.sort(generator(course.seed, START, i).permutation(len(rows))[:n_evaluated])]
            for i, (part, rows) in enumerate((("train", train_rows), ("valid", valid_rows)))
        }

    def learn(self, batches: Sequence[NDArray[np.intp]], step: int) -> Tensor:
        (rows,) = batches
        rng = generator(self.course.seed, AUGMENTATION, step)
        images = random_dihedral(self.images[self.train_rows[rows]], rng)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.course.n_steps, self.optimization)
        terms = self._terms(images, rng)
        self.optimizer.zero_grad()
        self._loss(terms, self._pixel_variance(terms)).backward()
        self.optimizer.step()
        return torch.stack(terms).detach()[None] * len(rows)

    def records(self, sums: NDArray[np.float64], step: int) -> list[Record]:
        epoch = Terms(*torch.from_numpy(sums / self.course.n_rows))
        variance = self._pixel_variance(epoch)
        record: Record = {
            "learning_rate": learning_rate_at(step - 1, self.course.n_steps, self.optimization),
            "pixel_variance": float(variance),
        }
        self.vae.eval()
        for part, rows in self.evaluated.items():
            record |= {f"{part}_{name}": value for name, value in self._score(rows, variance).items()}
        self.vae.train()
        return [record]

    def _score(self, rows: NDArray[np.integer], variance: Tensor) -> dict[str, float]:
        """Losses of some rows with one draw of their latents, the same after every epoch."""
        rng = generator(self.course.seed, START, 2)
        squared_error = kl = 0.0
        drawn = []
        for start in range(0, len(rows), EVALUATION_BATCH):
            with torch.inference_mode():
                images = _on_device(self.images[rows[start : start + EVALUATION_BATCH]], self.device)
                posterior = self.vae.posterior(images)
                latents = self._draw(posterior, rng)
                squared_error += float(self._squared_errors(images, latents).double().sum())
                kl += float(self._kl(posterior).double().sum())
                drawn.append(latents)
        mmd = squared_mmd(torch.cat(drawn)).cpu()
        terms = Terms(torch.tensor(squared_error / len(rows)), torch.tensor(kl / len(rows)), mmd)
        loss = float(self._loss(terms, variance))
        return {
            "loss_per_image": loss,
            "loss_per_pixel": loss / self.vae.n_values,
            "squared_error_per_image": float(terms.squared_error),
            "squared_error_per_pixel": float(terms.squared_error) / self.vae.n_values,
            "kl_per_image": float(terms.kl),
            "mmd": float(terms.mmd),
        }

    def _terms(self, images: NDArray[np.uint8], rng: np.random.Generator) -> Terms:
        batch = _on_device(images, self.device)
        posterior = self.vae.posterior(batch)
        latents = self._draw(posterior, rng)
        return Terms(self._squared_errors(batch, latents).mean(), self._kl(posterior).mean(), squared_mmd(latents))

    def _draw(self, posterior: Posterior, rng: np.random.Generator) -> Tensor:
        if not self.vae.is_variational:
            return posterior.mean
        noise = torch.from_numpy(rng.standard_normal(posterior.mean.shape, dtype=np.float32)).to(self.device)
        return posterior.mean + torch.exp(posterior.log_variance / 2) * noise

    def _squared_errors(self, images: Tensor, latents: Tensor) -> Tensor:
        return (self.vae.decode(latents) - as_intensity(images)).square().sum(dim=(1, 2, 3))

    def _kl(self, posterior: Posterior) -> Tensor:
        if not self.vae.is_variational:
            return posterior.mean.new_zeros(len(posterior.mean))
        return kl_divergence(posterior)

    def _pixel_variance(self, terms: Terms) -> Tensor:
        if self.settings.pixel_variance is not None:
            return terms.squared_error.new_tensor(self.settings.pixel_variance)
        return (terms.squared_error / self.vae.n_values).detach()

    def _loss(self, terms: Terms, variance: Tensor) -> Tensor:
        """The formula of `train_vae`."""
        precision = 1 / (2 * variance)
        likelihood = self.vae.n_values / 2 * torch.log(2 * math.pi * variance) + precision * terms.squared_error
        match self.settings.objective:
            case "elbo":
                return likelihood + terms.kl
            case "mmd":
                return likelihood + precision * self.vae.n_latents * terms.mmd
            case "none":
                return likelihood

    def state(self) -> Record:
        return {"vae": self.vae.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Record) -> None:
        self.vae.load_state_dict(state["vae"])
        self.optimizer.load_state_dict(state["optimizer"])


def _on_device(images: NDArray[np.uint8], device: str) -> Tensor:
    return torch.from_numpy(np.asarray(images)).to(device)
