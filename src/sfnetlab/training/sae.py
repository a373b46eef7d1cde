"""Training of a sparse autoencoder on embeddings."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from sfnetlab.errors import DataError
from sfnetlab.models.sae import SparseAutoencoder
from sfnetlab.schema import SAE
from sfnetlab.training.loop import RESAMPLING, START, Course, Record, Report, generator, train

_RESAMPLED_AT = (0.2, 0.35, 0.5, 0.65)
_RESAMPLING_ROWS = 8192
_RESAMPLED_LENGTH = 0.2


def train_sae(
    embeddings: NDArray[np.float32],
    settings: SAE,
    k: int,
    *,
    seed: int,
    device: str,
    checkpoint: Path,
    report: Report,
) -> tuple[SparseAutoencoder, list[Record]]:
    """A sparse autoencoder of these embeddings, and its history.

    The loss is the mean squared error; for Matryoshka its mean over the nested dictionaries, each of which gets those
    of a row's active latents that belong to it. Tied start with unit atoms; Adam on the decoder's gradient without its
    part along the atoms, which are of length 1 again after each step (Gao et al. 2024, arXiv:2406.04093, appendix A).
    The learning rate rises over the first 5 % of the run and falls to zero over the last 20 %. Two things go beyond
    that paper, because runs here are short: k starts at up to 8 k and comes down over the first 60 % of the run; and
    at 20, 35, 50 and 65 % latents that were silent for half an epoch start again at residuals.

    Parameters
    ----------
    embeddings : ndarray of shape (n_samples, d_in)
        Train rows only; any units.
    k
        Active latents a row: one of `settings.k`.
    checkpoint
        Where the run's state is kept; a run that finds it goes on from there, see `loop.train`.
    report
        Gets the history after every epoch.

    Returns
    -------
    sae : SparseAutoencoder
        On the device.
    history : list of dict
        A record an epoch: `epoch` (from 1), `step`, `learning_rate`, `k` (where its descent is), `train_loss`,
        `train_fvu` (fraction of variance unexplained, of each row when it was learnt from), `l0`, `dead_fraction`
        (latents that were silent all epoch), `rows_per_s`, `seconds`.

    Raises
    ------
    DataError
        If there is no row, a value is not finite, or all rows are the same.
    TrainingError, ArtifactError
        See `loop.train`.
    """
    mean, scale = _mean_and_scale(embeddings)
    sae = SparseAutoencoder(embeddings.shape[1], settings.n_latents, k, _group_sizes(settings))
    sae.mean.copy_(torch.from_numpy(mean))
    sae.scale.fill_(scale)
    _start_tied(sae, generator(seed, START))
    sae.to(device)
    course = Course(
        n_rows=len(embeddings),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=seed,
        checkpoint=checkpoint,
        settings=asdict(settings) | {"k": k, "seed": seed, "n_train": len(embeddings)},
        label=f"{settings.name} k={k} seed={seed}",
        unit="row",
    )
    standardised = (torch.tensor(embeddings, device=device) - sae.mean) / sae.scale
    history = train(_SAELearner(sae, standardised, _peak_learning_rate(settings), course), course, report)
    return sae.requires_grad_(False), history


class _SAELearner:
    def __init__(self, sae: SparseAutoencoder, standardised: Tensor, peak_learning_rate: float, course: Course) -> None:
        self.sae, self.standardised = sae, standardised
        self.peak_learning_rate, self.course = peak_learning_rate, course
        self.optimizer = torch.optim.Adam(
            sae.parameters(), lr=peak_learning_rate, betas=(0.9, 0.99), eps=6.25e-10, fused=True
        )
        # The step at which each latent was last active; one more place takes the entries of `indices` with value 0.
        self.last_active = torch.full((sae.n_latents + 1,), -1, dtype=torch.int64, device=standardised.device)
        # Not before the first step, which is what gives the optimiser its moments.
        self.resampled_at = {max(1, round(share * course.n_steps)) for share in _RESAMPLED_AT}

    def step(self, rows: NDArray[np.intp], step: int) -> Tensor:
        if step in self.resampled_at:
            self._resample(step)
        z = self.standardised[torch.from_numpy(rows).to(self.standardised.device)]
        encoded = self.sae.encode_standardised(z, self._k(step))
        if self.sae.group_sizes:
            z_hat = self.sae.decode_prefixes_standardised(encoded)
        else:
            z_hat = self.sae.decode_standardised(encoded)[:, None]
        squared_errors = (z_hat - z[:, None]).square().sum(dim=(0, 2))  # of each nested dictionary
        loss = squared_errors.mean() / z.numel()

        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        self.optimizer.zero_grad()
        loss.backward()
        _project_decoder_gradient(self.sae)
        self.optimizer.step()
        with torch.no_grad():
            self.sae.W_dec.copy_(normalize(self.sae.W_dec))
            is_active = encoded.values > 0
            self.last_active[torch.where(is_active, encoded.indices, self.sae.n_latents)] = step
            return torch.stack([loss.detach() * len(rows), squared_errors[-1].detach(), is_active.sum()])

    def record(self, sums: NDArray[np.float64], step: int) -> Record:
        loss, squared_error, n_active = sums.tolist()
        n_rows, first_step = self.course.n_rows, step - self.course.batches_per_epoch
        return {
            "learning_rate": self._learning_rate(step - 1),
            "k": self._k(step - 1),
            "train_loss": loss / n_rows,
            # Rows are centred and scaled to a mean square of 1: this is the total sum of squares.
            "train_fvu": squared_error / self.standardised.numel(),
            "l0": n_active / n_rows,
            "dead_fraction": float((self.last_active[:-1] < first_step).float().mean()),
        }

    def state(self) -> Record:
        return {
            "sae": self.sae.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "last_active": self.last_active,
        }

    def restore(self, state: Record) -> None:
        self.sae.load_state_dict(state["sae"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.last_active.copy_(state["last_active"])

    def _learning_rate(self, step: int) -> float:
        n_steps = self.course.n_steps
        return self.peak_learning_rate * min(1.0, (step + 1) / (0.05 * n_steps), (n_steps - step) / (0.2 * n_steps))

    def _k(self, step: int) -> int:
        k = self.sae.k
        first = max(k, min(8 * k, self.sae.n_latents // 4))
        return round(k + (first - k) * max(0.0, 1 - step / (0.6 * self.course.n_steps)))

    @torch.no_grad()
    def _resample(self, step: int) -> None:
        """Start latents that were silent for half an epoch again, at residuals of rows drawn by their squared error."""
        silent = (step - self.last_active[:-1] > self.course.batches_per_epoch / 2).nonzero().flatten()
        rng = generator(self.course.seed, RESAMPLING, step)
        rows = rng.choice(self.course.n_rows, min(self.course.n_rows, _RESAMPLING_ROWS), replace=False)
        z = self.standardised[torch.from_numpy(rows).to(self.standardised.device)]
        residuals = z - self.sae.decode_standardised(self.sae.encode_standardised(z, self._k(step)))
        squared_errors = residuals.square().sum(dim=1).cpu().double().numpy()
        silent = silent[: np.count_nonzero(squared_errors)]
        if len(silent) == 0:
            return
        drawn = rng.choice(len(rows), len(silent), replace=False, p=squared_errors / squared_errors.sum())
        atoms = normalize(residuals[torch.from_numpy(drawn).to(z.device)])
        # As in Bricken et al. 2023, encoders start short: at full length they answer to what other latents explain of a
        # row, win the top-k from them, and the loss of many new latents at once jumps above that of the mean.
        is_alive = torch.ones(self.sae.n_latents, dtype=torch.bool, device=z.device).index_fill_(0, silent, False)
        length = _RESAMPLED_LENGTH * self.sae.W_enc[:, is_alive].norm(dim=0).mean() if is_alive.any() else 1.0
        for parameter, index, value in (
            (self.sae.W_dec, silent, atoms),
            (self.sae.W_enc, (slice(None), silent), length * atoms.T),
            (self.sae.b_enc, silent, 0.0),
        ):
            parameter[index] = value
            for name in ("exp_avg", "exp_avg_sq"):
                self.optimizer.state[parameter][name][index] = 0.0


@torch.no_grad()
def _project_decoder_gradient(sae: SparseAutoencoder) -> None:
    gradient = sae.W_dec.grad
    assert gradient is not None
    gradient -= (gradient * sae.W_dec).sum(dim=1, keepdim=True) * sae.W_dec


@torch.no_grad()
def _start_tied(sae: SparseAutoencoder, rng: np.random.Generator) -> None:
    atoms = torch.from_numpy(rng.standard_normal((sae.n_latents, sae.d_in), dtype=np.float32))
    sae.W_dec.copy_(normalize(atoms))
    sae.W_enc.copy_(sae.W_dec.T)


def _mean_and_scale(embeddings: NDArray[np.floating]) -> tuple[NDArray[np.float64], float]:
    """Mean of each column, and the root mean square of all entries about it."""
    if embeddings.ndim != 2 or len(embeddings) == 0:
        raise DataError(f"expected embeddings (n_samples, d_in) with at least one row, got shape {embeddings.shape}")
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise DataError(f"{len(bad)} of {len(embeddings)} embeddings are not finite (first: row {bad[0]})")
    mean = embeddings.mean(axis=0, dtype=np.float64)
    blocks = range(0, len(embeddings), 4096)
    total = sum(float(np.square(embeddings[start : start + 4096] - mean).sum()) for start in blocks)
    scale = math.sqrt(total / embeddings.size)
    # Rows that are equal leave nothing but rounding of their mean.
    if scale <= 1e-6 * float(np.abs(mean).max()):
        raise DataError(f"all {len(embeddings)} embeddings are the same: there is nothing to decompose")
    return mean, scale


def _group_sizes(settings: SAE) -> tuple[int, ...]:
    if settings.variant == "topk":
        return ()
    return settings.group_sizes or tuple(settings.n_latents // part for part in (32, 32, 16, 8, 4, 2))


def _peak_learning_rate(settings: SAE) -> float:
    if settings.learning_rate is not None:
        return settings.learning_rate
    return (4e-3 if settings.variant == "topk" else 2e-3) * math.sqrt(2048 / settings.n_latents)
