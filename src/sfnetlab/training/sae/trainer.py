"""Training of sparse autoencoders on embeddings: any number of them in one pass over the rows."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from sfnetlab.errors import DataError
from sfnetlab.models.sae import Encoded, SparseAutoencoder
from sfnetlab.training.loop import RESAMPLING, START, Course, Record, Report, generator, train
from sfnetlab.training.sae import recipe, reference
from sfnetlab.training.sae.settings import SAESettings
from sfnetlab.training.sae.stack import Rates, Stack, Steps, new_stack, one_by_one

log = logging.getLogger(__name__)

LARGE_MEAN = 1.0
"""Of |mean| / spread: above it latents of an SAE that is not centred die at the start (2605.31518)."""


class LargeMeanWarning(UserWarning):
    """The embeddings' mean is large and is not taken off."""


_AT_ONCE, _AT_ONCE_BYTES = 10, 2**23
"""Steps that one of several SAEs takes before the next one does, which finds its weights in the processor's cache; and
what their batches may hold."""
_FINDING_ROWS, _JUDGING_ROWS = 4096, 8192
"""Of these rows come new atoms, on the others they and the old ones are judged: at most a third and two thirds."""
_BLOCK_ROWS = 4096
_SMALLEST_COLUMN = 1e-3
"""Columns of less than this share of the largest one's spread count as of so much."""
_FIRST_THRESHOLD = 0.1
"""Of JumpReLU at least, in units of the embedding's scale, where a latent starts."""
_OWN_SHARE = 0.9
"""Of its own centroid in an archetypal atom at the start; the others have equal parts of the rest."""


@dataclass(frozen=True)
class Rows:
    """Rows of embeddings (n, d_in), possibly memory-mapped, of any float or integer type; `chosen` are those to use."""

    embeddings: NDArray[np.number]
    chosen: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, positions: NDArray[np.intp]) -> NDArray[np.float32]:
        """float32 rows (len(positions), d_in), a copy; infinite where a value is too large for that."""
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(self.embeddings[self.chosen[positions]], dtype=np.float32)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(self), _BLOCK_ROWS):
            yield self.take(np.arange(start, min(start + _BLOCK_ROWS, len(self))))


@dataclass(frozen=True)
class Standardisation:
    """z = (x - mean) / scale."""

    mean: NDArray[np.float32]
    scale: float
    variance: float = 1.0
    """Mean square of z's entries about their columns' means; less than 1 where the mean was not taken off."""


def fit_standardisation(rows: Rows, *, center: bool = True) -> Standardisation:
    """Mean of each column, and the root mean square of all entries about it.

    Without centring the mean is zero.

    Raises
    ------
    DataError
        If there is no row, a value is not finite as float32, or all rows are the same.

    Warns
    -----
    LargeMeanWarning
        If centring is off where that is known to kill latents.
    """
    total = _checked_sum(rows, "train")
    mean, squares, are_same = total / len(rows), 0.0, True
    first = rows.take(np.zeros(1, dtype=np.intp))
    for block in rows.blocks():
        squares += float(np.square(block - mean).sum())
        are_same = are_same and bool((block == first).all())
    if are_same:
        raise DataError(f"all {len(rows)} embeddings are the same: there is nothing to decompose")
    spread = math.sqrt(squares / (len(rows) * len(mean)))
    if center:
        return Standardisation(mean.astype(np.float32), spread)
    gamma = float(np.linalg.norm(mean)) / (spread * math.sqrt(len(mean)))
    if gamma > LARGE_MEAN:
        message = f"the embeddings' mean is {gamma:.2g} times their spread, and centring is off: latents will die"
        warnings.warn(message, LargeMeanWarning, stacklevel=2)
    return Standardisation(np.zeros_like(mean, dtype=np.float32), math.hypot(1, gamma) * spread, 1 / (1 + gamma**2))


def _checked_sum(rows: Rows, name: str) -> NDArray[np.float64]:
    """Sum of each column, (d_in,), of rows that are there and finite."""
    if rows.embeddings.ndim != 2 or len(rows) == 0 or rows.embeddings.shape[1] == 0:
        raise DataError(
            f"expected embeddings (n_samples, d_in) with at least one {name} row and one column, got {len(rows)} rows "
            f"of shape {rows.embeddings.shape}"
        )
    total = np.zeros(rows.embeddings.shape[1])
    first_bad, n_bad, seen = -1, 0, 0
    for block in rows.blocks():
        is_bad = ~np.isfinite(block).all(axis=1)
        if is_bad.any():
            first_bad = first_bad if n_bad else int(rows.chosen[seen + int(is_bad.argmax())])
            n_bad += int(is_bad.sum())
        seen += len(block)
        total += block[~is_bad].sum(axis=0, dtype=np.float64)
    if n_bad:
        raise DataError(
            f"{n_bad} of {len(rows)} {name} rows hold NaN, inf or values too large for float32 (first: row {first_bad})"
            "; leave them out"
        )
    return total


def train_saes(
    rows: Rows,
    settings: Sequence[SAESettings],
    *,
    epochs: int,
    batch_size: int | None,
    standardisation: Standardisation,
    valid: Rows,
    device: str,
    checkpoint: Path | None,
    report: Report,
    label: str = "sae",
    order_seed: int = 0,
) -> tuple[list[SparseAutoencoder], list[Record]]:
    """Sparse autoencoders of these embeddings, in the order of their settings, and their history.

    All of them see the same batches; each ends as if it had been trained alone. The recipe is in recipe.py, what a
    step does in stack.py, the variants in reference.py.

    Parameters
    ----------
    rows
        Train rows; any units.
    batch_size
        Rows a step; None: `recipe.batch_size`.
    valid
        Rows on which the thresholds of BatchTopK, JumpReLU and ReLU are set, so that k latents a row are active on
        average.
    checkpoint
        Where the run's state is kept, if it is; a run that finds it goes on from there, see `loop.train`.
    report
        Gets the history after every epoch.
    order_seed
        Of the order in which rows are seen.

    Returns
    -------
    saes : list of SparseAutoencoder
        On the device.
    history : list of dict
        A record an epoch and SAE: `epoch` (from 1), `step`, `sae` (its position), `variant`, `n_latents`, `k` (its
        final one), `seed`, `k_now`, `learning_rate`, `train_loss`, `train_fvu` (fraction of variance unexplained, of
        each row when it was learnt from), `l0`, `dead_fraction` (latents that were silent all epoch), `rows_per_s`,
        `seconds`.

    Raises
    ------
    TrainingError, ArtifactError
        See `loop.train`.
    DataError
        If there are no valid rows and a variant needs them, or one is not finite.
    """
    if any(one.is_calibrated for one in settings):
        _checked_sum(valid, "valid")  # now rather than after the training
    batch_size = batch_size or recipe.batch_size(len(rows), epochs)
    course = Course(
        n_rows=len(rows),
        batch_size=batch_size,
        epochs=epochs,
        seed=order_seed,
        checkpoint=checkpoint,
        settings={
            "saes": [asdict(one) | {"group_sizes": list(one.group_sizes)} for one in settings],
            "epochs": epochs,
            "batch_size": batch_size,
            "order_seed": order_seed,
            "n_train": len(rows),
        },
        label=label,
        unit="row",
    )
    gather = _gather(rows, standardisation, device)
    learner = _SAELearner(settings, gather, course, device, standardisation.variance)
    history = train(learner, course, report)
    saes: list[SparseAutoencoder] = []
    for stack, s in learner.places():
        sae, own = as_model(stack, s, standardisation), stack.settings[s]
        if own.is_calibrated:
            factor = calibrated_factor(sae, valid)
            if factor == 0:
                log.warning(
                    "%s: k %d, seed %d: fewer than k latents a valid row are positive, and all stay active; "
                    "take a smaller k",
                    label,
                    own.k,
                    own.seed,
                )
            sae.thresholds.mul_(factor)
        saes.append(sae)
    return [saes[position] for position in np.argsort(learner.order)], history


class _Misses(NamedTuple):
    """What an SAE leaves of some rows."""

    residuals: Tensor
    """(n, d_in)"""
    weakest: Tensor
    """(n,), the weakest active value of each row; 0 where none is active."""
    without_weakest: Tensor
    """(n, d_in), residuals without that latent."""
    encoded: Encoded


class _SAELearner:
    def __init__(
        self,
        settings: Sequence[SAESettings],
        gather: Callable[[NDArray[np.intp]], Tensor],
        course: Course,
        device: str,
        variance: float,
    ) -> None:
        self.settings, self.gather, self.course, self.variance = settings, gather, course, variance
        self.stacks, self.order = _stacks(settings, gather, course, device)
        self.advance = choose_steps(self.stacks, device)
        self.d_in = self.stacks[0].weights["b_dec"].shape[1]
        batch_bytes = 4 * self.d_in * course.batch_size
        self.at_once = 1 if len(settings) == 1 else min(max(1, _AT_ONCE_BYTES // batch_bytes), _AT_ONCE)
        self.resampled_at = {own.variant: recipe.resampling_steps(own.variant, course.n_steps) for own in settings}

    def places(self) -> list[tuple[Stack, int]]:
        return [(stack, s) for stack in self.stacks for s in range(stack.n_saes)]

    def learn(self, batches: Sequence[NDArray[np.intp]], step: int) -> Tensor:
        sums: list[Tensor] = []
        done, end = step, step + len(batches)
        while done < end:
            for stack, s in self.places():
                if done in self.resampled_at[stack.shape.variant]:
                    self._resample(stack, s, done)
            pauses = frozenset[int]().union(*self.resampled_at.values())
            until = min((at for at in pauses if done < at < end), default=end)
            rates = [[self._rates(stack.settings[s], at) for stack, s in self.places()] for at in range(done, until)]
            rows = [self.gather(batch) for batch in batches[done - step : until - step]]
            sums.append(self.advance(rows, rates, done))
            done = until
        return torch.cat(sums).flatten(1)

    def _rates(self, settings: SAESettings, step: int) -> Rates:
        n_steps, n_batch = self.course.n_steps, self.course.n_rows / self.course.batches_per_epoch
        return recipe.rates_at(settings, step, n_steps, n_batch, self.d_in)

    def records(self, sums: NDArray[np.float64], step: int) -> list[Record]:
        n_rows, first_step = self.course.n_rows, step - self.course.batches_per_epoch
        records: list[Record] = []
        for position, (stack, s), (loss, squared_error, n_active) in sorted(
            zip(self.order, self.places(), sums.reshape(-1, 3).tolist(), strict=True), key=lambda entry: entry[0]
        ):
            own = stack.settings[s]
            now = self._rates(own, step - 1)
            records.append(
                {
                    "sae": position,
                    "variant": own.variant,
                    "n_latents": own.n_latents,
                    "k": own.k,
                    "seed": own.seed,
                    "k_now": now.k,
                    "learning_rate": now.learning_rate,
                    "train_loss": loss / n_rows,
                    "train_fvu": squared_error / (n_rows * self.d_in * self.variance),
                    "l0": n_active / n_rows,
                    "dead_fraction": float((stack.last_active[s] < first_step).float().mean()),
                }
            )
        return records

    def state(self) -> Record:
        return {
            "stacks": [
                {
                    "weights": stack.weights,
                    "means": stack.means,
                    "mean_squares": stack.mean_squares,
                    "last_active": stack.last_active,
                }
                for stack in self.stacks
            ]
        }

    def restore(self, state: Record) -> None:
        for stack, saved in zip(self.stacks, state["stacks"], strict=True):
            stack.last_active.copy_(saved["last_active"])
            for own, theirs in (
                (stack.weights, saved["weights"]),
                (stack.means, saved["means"]),
                (stack.mean_squares, saved["mean_squares"]),
            ):
                for name, tensor in own.items():
                    tensor.copy_(theirs[name])

    @torch.no_grad()
    def _resample(self, stack: Stack, s: int, step: int) -> None:
        """Start latents again that are silent, or worth less on some rows than an atom that other rows miss."""
        settings = stack.settings[s]
        if settings.variant == "archetypal" or settings.frozen != "none":
            # Archetypal atoms are not free to move there: restarts at the nearest raised FVU by 5 to 45 %, and of all
            # centroids hardly one lowers the error of rows in the place of their weakest latents.
            return
        rng = generator(settings.seed, RESAMPLING, step)
        n_rows = self.course.n_rows
        positions = rng.choice(n_rows, min(n_rows, _FINDING_ROWS + _JUDGING_ROWS), replace=False)
        model = as_model(stack, s, None, recipe.k_at(settings, step, self.course.n_steps))
        z, other_z = (self.gather(part) for part in np.split(positions, [-(-len(positions) // 3)]))
        found, other = _misses(model, z), _misses(model, other_z)
        squared_errors = found.residuals.square().sum(dim=1).cpu().double().numpy()
        n_atoms = min(math.ceil(recipe.CANDIDATES * settings.n_latents), np.count_nonzero(squared_errors))
        if n_atoms == 0 or not np.isfinite(squared_errors).all() or not other.residuals.isfinite().all():
            return  # what is not finite is the loop's to report
        drawn = rng.choice(len(z), n_atoms, replace=False, p=squared_errors / squared_errors.sum())
        atoms = _missing_atoms(found, torch.from_numpy(drawn).to(z.device))
        atoms = atoms[atoms.norm(dim=1) > 0]
        if len(atoms) == 0:
            return
        encoders = recipe.RESTART_RESPONSE * _matched_filters(atoms, z)
        gain = _gain(other, other_z @ encoders.T, atoms)
        is_silent = step - stack.last_active[s] > stack.silent_after
        restarted, chosen = _swaps(gain, atoms, _value(model, other), is_silent)
        starts: dict[str, Tensor | float] = {"W_dec": atoms[chosen], "W_enc": encoders[chosen], "b_enc": 0.0}
        if settings.variant in recipe.RESTART_L0 and len(chosen):
            share = min(1.0, recipe.RESTART_L0[settings.variant] * settings.k / settings.n_latents)
            bound = (z @ encoders[chosen].T).kthvalue(max(1, round((1 - share) * len(z))), dim=0).values
            if settings.variant == "relu":
                starts["b_enc"] = -bound
            else:
                starts["log_threshold"] = bound.clamp_min(_FIRST_THRESHOLD).log()
        for name, start in starts.items():
            stack.weights[name][s, restarted] = start
            stack.mean_squares[name][s, restarted] = 0.0  # the next gradient is as a first one


def _missing_atoms(misses: _Misses, drawn: Tensor) -> Tensor:
    """Directions of the residuals of some rows, each averaged over all rows that it answers to.

    (len(drawn), d_in); zero where there is no such row.
    """
    answers = misses.residuals @ normalize(misses.residuals[drawn]).T
    return normalize(torch.where(answers > misses.weakest[:, None], answers, 0.0).T @ misses.residuals)


def _swaps(gain: Tensor, atoms: Tensor, value: Tensor, is_silent: Tensor) -> tuple[Tensor, Tensor]:
    """Which latents make room for which new atoms: the worst for the best, as long as that pays.

    A silent latent makes room for any atom, one that is worth something for `RESTART_GAIN` times as much. That is for
    unlike atoms: those that are like a better one share its gain, and can only have what silent latents are left.
    """
    by_gain = gain.argsort(descending=True)
    likeness = (atoms[by_gain] @ atoms[by_gain].T).triu(1).amax(dim=0)
    by_gain, likeness = by_gain[likeness <= recipe.SAME], likeness[likeness <= recipe.SAME]
    is_like = likeness > recipe.ALIKE
    order = by_gain[is_like.int().argsort(stable=True)]
    # Latents that were active lately, but on none of these rows, cannot be judged.
    cost = torch.where(is_silent, 0.0, torch.where(value == 0, torch.inf, torch.relu(value)))
    cost, worst = cost.sort()
    cost, worst = cost[: len(order)], worst[: len(order)]
    pays = (cost == 0) | (~is_like.sort(stable=True).values & (gain[order] > recipe.RESTART_GAIN * cost))
    return worst[pays], order[pays]


def _matched_filters(atoms: Tensor, z: Tensor) -> Tensor:
    """For each atom, what answers 1 to it and as little as possible to these rows otherwise (n_atoms, d_in).

    C^-1 a / (a^T C^-1 a) with the rows' covariance C and a ridge on it. The atom itself would answer to what other
    latents explain of a row wherever rows vary most.
    """
    covariance = z.T @ z / len(z)
    ridge = recipe.FILTER_RIDGE * covariance.diagonal().mean().clamp_min(1e-6)
    filters = torch.linalg.solve(covariance + ridge * torch.eye(len(covariance), device=z.device), atoms.T).T
    return filters / (filters * atoms).sum(dim=1, keepdim=True)


def _misses(model: SparseAutoencoder, z: Tensor) -> _Misses:
    values, indices = model.encode(z)
    residuals = z - model.decode(Encoded(values, indices))
    weakest, slot = torch.where(values > 0, values, torch.inf).min(dim=1)
    weakest = torch.where(weakest.isinf(), 0.0, weakest)
    removed = weakest[:, None] * model.W_dec[indices.gather(1, slot[:, None])[:, 0]]
    return _Misses(residuals, weakest, residuals + removed, Encoded(values, indices))


def _value(model: SparseAutoencoder, misses: _Misses) -> Tensor:
    """By how much the summed squared error rises without each latent, other values as they are; (n_latents,).

    With some standard errors on top: a latent that few rows show may be worth more than it seems.
    """
    values, indices = misses.encoded
    along = _products(misses.residuals, model.W_dec, indices)
    rises = (values * (2 * along + values)).flatten()
    nothing = torch.zeros(len(model.W_dec), device=values.device)
    sums, squares = (nothing.index_add(0, indices.flatten(), each) for each in (rises, rises.square()))
    return sums + recipe.STANDARD_ERRORS * squares.sqrt()


def _products(rows: Tensor, table: Tensor, indices: Tensor) -> Tensor:
    """rows[i] . table[indices[i, m]]: gradients of a sparse decoder's codes, which touch what is asked for alone."""
    codes = torch.zeros(indices.shape, device=rows.device, requires_grad=True)
    with torch.enable_grad():
        sums = embedding_bag(indices, table, per_sample_weights=codes, mode="sum")
    return torch.autograd.grad(sums, codes, rows)[0]


def _gain(misses: _Misses, answers: Tensor, atoms: Tensor) -> Tensor:
    """By how much the squared error of rows falls if each atom, alone, takes the place of a row's weakest latent.

    It does where its latent's answer (n, n_atoms) is larger. Shape (n_atoms,).
    """
    before, without = misses.residuals.square().sum(dim=1), misses.without_weakest.square().sum(dim=1)
    change = (before - without)[:, None] + answers * (2 * misses.without_weakest @ atoms.T - answers)
    change = torch.where(answers > misses.weakest[:, None], change, 0.0)
    return change.sum(dim=0)


@torch.no_grad()
def as_model(stack: Stack, s: int, standardisation: Standardisation | None, k: int | None = None) -> SparseAutoencoder:
    """The SAE of a stack as it stands, of rows that are not standardised yet unless that is None.

    Batch-wide variants get row-wise top-k until their threshold is set.
    """
    own, weights = stack.settings[s], {name: tensor[s] for name, tensor in stack.weights.items()}
    rule: Literal["topk", "threshold"] = "topk"
    if own.variant in ("relu", "jumprelu") or (own.is_batch_wide and standardisation is not None):
        rule = "threshold"
    device = weights["b_dec"].device
    sae = SparseAutoencoder(len(weights["b_dec"]), own.n_latents, k or own.k, own.group_sizes, rule).to(device)
    sae.requires_grad_(False)
    sae.W_enc.copy_(weights["W_enc"].T)
    for name in ("b_enc", "W_dec", "b_dec"):
        getattr(sae, name).copy_(weights[name])
    if own.is_batch_wide or (own.variant == "relu" and standardisation is not None):
        sae.thresholds.fill_(1.0)
    if "log_threshold" in weights:
        sae.thresholds.copy_(weights["log_threshold"].exp())
    if standardisation is not None:
        sae.mean.copy_(torch.from_numpy(standardisation.mean))
        sae.scale.fill_(standardisation.scale)
    return sae


@torch.inference_mode()
def calibrated_factor(sae: SparseAutoencoder, rows: Rows) -> float:
    """What thresholds must be multiplied by for k latents a row to be active on average: exactly, on these rows."""
    assert sae.k is not None
    n_wanted = sae.k * len(rows)
    values = torch.zeros(0)
    for block in rows.blocks():
        pre = sae.pre_activations(torch.from_numpy(block).to(sae.mean.device)) / sae.thresholds
        # The n_wanted largest of all are among the n_wanted largest of what was seen.
        values = torch.cat([values, pre[pre > 0].cpu()])
        if len(values) > 2 * n_wanted:
            values = values.topk(n_wanted + 1).values
    if len(values) <= n_wanted:
        return 0.0
    # Between the last that shall be active and the first that shall not.
    last, first = values.topk(n_wanted + 1).values[-2:].tolist()
    return (last + first) / 2


def _gather(rows: Rows, standardisation: Standardisation, device: str) -> Callable[[NDArray[np.intp]], Tensor]:
    """Standardised rows (n, d_in) on the device, by their positions; in the order of positions, which disks like."""

    def from_memory(positions: NDArray[np.intp]) -> Tensor:
        x = rows.take(np.sort(positions))
        x -= standardisation.mean
        x *= np.float32(1 / standardisation.scale)
        return torch.from_numpy(x)

    if device == "cpu":
        return from_memory
    resident = torch.cat([from_memory(part) for part in np.array_split(np.arange(len(rows)), 64) if len(part)])
    resident = resident.to(device)
    return lambda positions: resident[torch.from_numpy(np.sort(positions)).to(device, non_blocking=True)]


def _stacks(
    settings: Sequence[SAESettings], gather: Callable[[NDArray[np.intp]], Tensor], course: Course, device: str
) -> tuple[list[Stack], list[int]]:
    """Stacks of SAEs, those with kernels first, and the position in `settings` of each SAE of the stacks in order."""

    def shape(position: int) -> tuple[object, ...]:
        own = settings[position]
        alone = position if device == "cpu" else 0  # on the CPU threads take SAEs one by one
        like = (own.variant, own.n_latents, own.group_sizes, own.selection, own.auxk, own.frozen, own.start)
        return (not own.has_kernels, *map(repr, like), alone)

    order = sorted(range(len(settings)), key=shape)
    stacks = []
    silent_after = recipe.silent_after(course.n_steps, course.batches_per_epoch)
    speeds = column_speeds(gather, course.n_rows)
    for _, positions in groupby(order, key=shape):
        own = [settings[position] for position in positions]
        started = [start_weights(one, gather, course.n_rows) for one in own]
        weights = {name: torch.stack([each[name] for each in started]).to(device) for name in started[0]}
        stacks.append(new_stack(own, weights, silent_after, speeds))
    return stacks, order


def column_speeds(gather: Callable[[NDArray[np.intp]], Tensor], n_rows: int) -> Tensor:
    """What the gradient of an encoder's entries is multiplied by in each column of the standardised rows z, (d_in,).

    1 / the root mean square of a column, so that columns of little spread are learnt as fast as others, as by Adam;
    times the share of rows that make the column, mean(|z|)^2 / mean(z^2) (Treves & Rolls 1991), over a normal column's
    2 / pi: a column that is 0 but in few rows is small, too, and these rows would be learnt by heart. Of at most
    `_JUDGING_ROWS` rows; the share is that of one row at least.
    """
    z = gather(generator(0, START).choice(n_rows, min(n_rows, _JUDGING_ROWS), replace=False))
    mean_squares = z.square().mean(dim=0)
    shares = z.abs().mean(dim=0).square() / mean_squares.clamp_min(torch.finfo().tiny)
    sizes = mean_squares.sqrt()
    sizes = sizes.clamp_min(_SMALLEST_COLUMN * (float(sizes.max()) or 1 / _SMALLEST_COLUMN))
    return torch.pi / 2 * shares.clamp_min(1 / len(z)) / sizes


def start_weights(
    settings: SAESettings, gather: Callable[[NDArray[np.intp]], Tensor], n_rows: int
) -> dict[str, Tensor]:
    """Weights before the first step: tied, with atoms of length 1 (Gao et al. 2024), unless these are centroids."""
    n_latents, rng = settings.n_latents, generator(settings.seed, START)
    d_in = gather(np.zeros(1, dtype=np.intp)).shape[1]
    points = torch.zeros(0)
    if settings.start == "centroids":
        z, points = _centroids(gather, n_rows, n_latents)
        atoms = normalize(points)
        encoder = _fitting_encoder(atoms, z, recipe.k_at(settings, 0, 1))
    else:
        atoms = normalize(torch.from_numpy(rng.standard_normal((n_latents, d_in), dtype=np.float32)))
        encoder = atoms
    if settings.frozen in ("decoder", "encoder"):
        # Tied weights would give the frozen part away.
        encoder = normalize(torch.from_numpy(rng.standard_normal((n_latents, d_in), dtype=np.float32)))
    weights = {
        "W_enc": encoder.clone(),
        "b_enc": torch.zeros(n_latents),
        "W_dec": atoms.clone(),
        "b_dec": torch.zeros(d_in),
    }
    match settings.variant:
        case "jumprelu":
            # Pre-activations of random atoms are standard normal: this lets the first, larger k pass.
            share = min(0.25, recipe.K_START * settings.k / n_latents)
            weights["log_threshold"] = torch.full(
                (n_latents,), math.log(max(_FIRST_THRESHOLD, NormalDist().inv_cdf(1 - share)))
            )
        case "archetypal":
            shares = torch.full((n_latents, n_latents), (1 - _OWN_SHARE) / n_latents).fill_diagonal_(_OWN_SHARE)
            logits = shares.log() / reference.MIXTURE_SPEED
            weights |= {"points": points, "mixture": logits, "relaxation": torch.zeros(n_latents, d_in)}
            weights["W_dec"] = reference.archetypes(weights)
        case _:
            pass
    return weights


def _fitting_encoder(atoms: Tensor, z: Tensor, k: int) -> Tensor:
    """Matched filters of atoms that are alike, times the factor with which k latents a row fit these rows best.

    Such atoms as their own encoder would all answer at once: the first reconstructions were 100 times too long.
    """
    encoder = _matched_filters(atoms, z)
    z_hat = reference.select(z @ encoder.T, k, is_batch_wide=False) @ atoms
    return encoder * ((z * z_hat).sum() / z_hat.square().sum().clamp_min(1e-12))


def _centroids(gather: Callable[[NDArray[np.intp]], Tensor], n_rows: int, n_clusters: int) -> tuple[Tensor, Tensor]:
    """Some rows and their k-means centroids, the same for every seed: that makes archetypal SAEs stable (2606.02061).

    (n_sampled, d_in), (n_clusters, d_in)
    """
    from sklearn.cluster import MiniBatchKMeans

    if n_rows < n_clusters:
        raise DataError(f"a start at centroids needs at least n_latents={n_clusters} train rows, got {n_rows}")
    rng = generator(0, START)
    z = gather(rng.choice(n_rows, min(n_rows, 8 * n_clusters), replace=False)).cpu().numpy()
    kmeans = MiniBatchKMeans(n_clusters, init="random", batch_size=4096, max_iter=10, n_init=1, random_state=0).fit(z)
    return torch.from_numpy(z), torch.from_numpy(kmeans.cluster_centers_.astype(np.float32))


def choose_steps(stacks: Sequence[Stack], device: str) -> Steps:
    """The kernels on the CPU for the stacks that have some, which come first; else the plain step."""
    n_fast = sum(stack.shape.has_kernels for stack in stacks) if device == "cpu" else 0
    parts: list[tuple[int, Steps]] = []
    if n_fast:
        from sfnetlab.training.sae import numba_step

        parts.append((sum(stack.n_saes for stack in stacks[:n_fast]), numba_step.make_steps(stacks[:n_fast])))
    if n_fast < len(stacks):
        others = stacks[n_fast:]
        parts.append((sum(stack.n_saes for stack in others), one_by_one(reference.make_step(others))))

    def steps(batches: Sequence[Tensor], rates: Sequence[Sequence[Rates]], first: int) -> Tensor:
        sums: list[Tensor] = []
        begin = 0
        for n_saes, take in parts:
            sums.append(take(batches, [own[begin : begin + n_saes] for own in rates], first))
            begin += n_saes
        return torch.cat(sums, dim=1)

    return steps
