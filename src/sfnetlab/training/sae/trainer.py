"""Training of sparse autoencoders on embeddings: any number of them in one pass over the rows."""

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfnetlab.errors import DataError
from sfnetlab.models.sae import SparseAutoencoder
from sfnetlab.training.batches import fits
from sfnetlab.training.loop import Course, Pieces, Record, Report, train
from sfnetlab.training.sae import recipe, reference
from sfnetlab.training.sae.restarts import restart_latents
from sfnetlab.training.sae.rows import HeldPieces, Rows
from sfnetlab.training.sae.settings import SAESettings, Standardize
from sfnetlab.training.sae.start import Gather, column_speeds, start_weights
from sfnetlab.training.sae.state import Rates, SAEState, Steps, as_model, new_state, one_by_one

log = logging.getLogger(__name__)

LARGE_MEAN = 1.0
"""Ratio |mean| / spread above which latents of an SAE that is not centred die at the start (2605.31518)."""


class LargeMeanWarning(UserWarning):
    """The embeddings' mean is large and is not subtracted."""


AT_ONCE = 10
"""Number of steps that one of several SAEs takes before the next one does, at most: its weights are in the processor's
cache then."""
_AT_ONCE_BYTES = 2**23
"""Size of the batches of these steps, at most."""
IN_MEMORY_BYTES = 2**31
"""Size of the train rows up to which they are permuted one by one. Larger ones are read and mixed in pieces, on any
machine, so that results do not depend on its memory."""
_PIECE_BYTES, _WINDOW_BYTES = 2**20, 2**28
"""Sizes of the rows that are read together, and of those that are mixed; two windows are held."""
_CHECKPOINT_FORMAT = 2
"""Is raised when what a checkpoint holds changes, so that a run does not go on from one of the former kind."""


@dataclass(frozen=True)
class Standardisation:
    """Centring and scale of embeddings: z = (x - mean) / scale."""

    mean: NDArray[np.float32]
    scale: float | NDArray[np.float32]
    """One number, or one a column, (d_in,)."""
    variance: float = 1.0
    """Mean square of the entries of z about their columns' means; less than 1 where the mean was not subtracted."""


def fit_standardisation(rows: Rows, *, center: bool = True, standardize: Standardize = "one scale") -> Standardisation:
    """Mean of each column, and the root mean square of all entries about it, of these rows.

    With `standardize="columns"` the scale is the root mean square of each column's own entries, and that of the median
    column where these are all the same. Without centring the mean is zero, and the scale is the root mean square of the
    entries themselves.

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
    mean, squares, of_columns, are_same = total / len(rows), 0.0, np.zeros(len(total)), True
    first = rows.take(np.zeros(1, dtype=np.intp))
    for block in rows.blocks():
        of_block = np.square(block - mean)
        squares += float(of_block.sum())
        of_columns += of_block.sum(axis=0)
        are_same = are_same and bool((block == first).all())
    if are_same:
        raise DataError(f"all {len(rows)} embeddings are the same: there is nothing to decompose")
    spread = math.sqrt(squares / (len(rows) * len(mean)))
    if spread < np.finfo(np.float32).tiny:
        raise DataError(f"the embeddings' spread is {spread:.2g}, too small for float32: multiply them by a number")
    if center and standardize == "one scale":
        return Standardisation(mean.astype(np.float32), spread)
    variances = of_columns / len(rows)
    if center:
        return _by_column(mean.astype(np.float32), variances, variances)
    gamma = float(np.linalg.norm(mean)) / (spread * math.sqrt(len(mean)))
    if gamma > LARGE_MEAN:
        message = f"the embeddings' mean is {gamma:.2g} times their spread, and centring is off: latents will die"
        warnings.warn(message, LargeMeanWarning, stacklevel=2)
    zero = np.zeros_like(mean, dtype=np.float32)
    if standardize == "columns":
        return _by_column(zero, variances + np.square(mean), variances)
    return Standardisation(zero, math.hypot(1, gamma) * spread, 1 / (1 + gamma**2))


def _by_column(
    mean: NDArray[np.float32], mean_squares: NDArray[np.float64], variances: NDArray[np.float64]
) -> Standardisation:
    """Standardisation with a scale a column, from the mean squares and variances (d_in,) of the columns."""
    # What rounding of the mean leaves of a constant column is no spread.
    varies = (
        mean_squares
        > np.maximum(np.finfo(np.float32).eps * np.abs(mean, dtype=np.float64), np.finfo(np.float32).tiny) ** 2
    )
    squares = np.where(varies, mean_squares, np.median(mean_squares[varies]))
    return Standardisation(mean, np.sqrt(squares).astype(np.float32), float(np.mean(variances / squares)))


def _checked_sum(rows: Rows, name: str) -> NDArray[np.float64]:
    """Sum of each column, (d_in,); a `DataError` if there is no row or one is not finite. `name` is for the message."""
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
    """Sparse autoencoders of these embeddings, in the order of their settings, and the history of their training.

    All of them see the same batches, and each ends as if it had been trained alone. The recipe is in recipe.py, the
    meaning of a step in state.py, the variants are in reference.py. On the CPU the kernels take the steps of variants
    that have some, elsewhere the plain step does.

    Parameters
    ----------
    rows
        Train rows; any units.
    batch_size
        Number of rows a step; None: by `recipe.batch_size`.
    valid
        Rows on which the thresholds of BatchTopK, JumpReLU and ReLU are set, so that k latents a row are active on
        average.
    checkpoint
        File that keeps the state of the run; a run that finds it goes on from there, see `loop.train`. None: nothing
        is kept.
    report
        Is called with the history after every epoch.
    label
        Name of the run in messages.
    order_seed
        Seed of the order in which rows are seen.

    Returns
    -------
    saes : list of SparseAutoencoder
        They are on the device, for embeddings in their own units.
    history : list of dict
        One record for each epoch and SAE: `epoch` (from 1), `step`, `sae` (its position), `variant`, `n_latents`, `k`
        (its final value), `seed`, `k_now`, `learning_rate`, `train_loss`, `train_fvu` (fraction of variance
        unexplained, of each standardised row at the step that learnt from it), `l0`, `dead_fraction` (share of latents
        that were silent all epoch), `rows_per_s`, `seconds`.

    Raises
    ------
    TrainingError, ArtifactError
        See `loop.train`.
    DataError
        If a variant needs valid rows and there is none, or one is not finite.
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
            "format": _CHECKPOINT_FORMAT,
        },
        label=label,
        unit="row",
        pieces=_pieces(rows, batch_size),
    )
    gathers = _gathers(rows, standardisation, device, course.pieces)
    learner = SAELearner(settings, gathers, course, device, standardisation.variance)
    history = train(learner, course, report)
    return [_finished(state, standardisation, valid, label) for state in learner.states], history


def _finished(state: SAEState, standardisation: Standardisation, valid: Rows, label: str) -> SparseAutoencoder:
    """The trained SAE, for embeddings in their own units, with its thresholds."""
    settings = state.settings
    sae = as_model(state, settings.k, is_final=True)
    sae.mean.copy_(torch.from_numpy(standardisation.mean))
    sae.scale = torch.as_tensor(standardisation.scale, dtype=torch.float32, device=sae.mean.device)
    if settings.is_calibrated:
        factor = calibrated_factor(sae, valid)
        if factor == 0:
            log.warning(
                "%s: k %d, seed %d: fewer than k latents a valid row are positive, and all stay active; "
                "take a smaller k",
                label,
                settings.k,
                settings.seed,
            )
        sae.thresholds.mul_(factor)
    return sae


class Gathers(NamedTuple):
    """Two readers of rows z."""

    anywhere: Gather
    """For a few rows, wherever they are."""
    of_batch: Gather
    """For the batches of an epoch in their order."""


class SAELearner:
    """Several SAEs that learn from the same batches; see `loop.Learner` for the methods."""

    def __init__(
        self, settings: Sequence[SAESettings], gathers: Gathers, course: Course, device: str, variance: float
    ) -> None:
        self.gathers, self.course, self.variance = gathers, course, variance
        self.states = _start(settings, gathers.anywhere, course, device)
        self.advance = choose_steps(self.states, device)
        self.d_in = len(self.states[0].weights["b_dec"])
        batch_bytes = 4 * self.d_in * course.batch_size
        self.at_once = 1 if len(settings) == 1 else min(max(1, _AT_ONCE_BYTES // batch_bytes), AT_ONCE)
        self.resampled_at = {one.variant: recipe.resampling_steps(one.variant, course.n_steps) for one in settings}

    def learn(self, batches: Sequence[NDArray[np.intp]], step: int) -> Tensor:
        sums: list[Tensor] = []
        done, end = step, step + len(batches)
        pauses = frozenset[int]().union(*self.resampled_at.values())
        while done < end:
            for state in self.states:
                if done in self.resampled_at[state.settings.variant]:
                    restart_latents(state, self.gathers.anywhere, self.course.n_rows, done, self.course.n_steps)
            until = min((at for at in pauses if done < at < end), default=end)
            rates = [[self._rates(state.settings, at) for state in self.states] for at in range(done, until)]
            rows = [self.gathers.of_batch(batch) for batch in batches[done - step : until - step]]
            sums.append(self.advance(rows, rates, done))
            done = until
        return torch.cat(sums).flatten(1)

    def _rates(self, settings: SAESettings, step: int) -> Rates:
        n_steps, n_batch = self.course.n_steps, self.course.n_rows / self.course.batches_per_epoch
        return recipe.rates_at(settings, step, n_steps, n_batch, self.d_in)

    def records(self, sums: NDArray[np.float64], step: int) -> list[Record]:
        n_rows, first_step = self.course.n_rows, step - self.course.batches_per_epoch
        records: list[Record] = []
        for position, (state, of_sae) in enumerate(zip(self.states, sums.reshape(-1, 3).tolist(), strict=True)):
            loss, squared_error, n_active = of_sae
            settings = state.settings
            now = self._rates(settings, step - 1)
            records.append(
                {
                    "sae": position,
                    "variant": settings.variant,
                    "n_latents": settings.n_latents,
                    "k": settings.k,
                    "seed": settings.seed,
                    "k_now": now.k,
                    "learning_rate": now.learning_rate,
                    "train_loss": loss / n_rows,
                    "train_fvu": squared_error / (n_rows * self.d_in * self.variance),
                    "l0": n_active / n_rows,
                    "dead_fraction": float((state.last_active < first_step).float().mean()),
                }
            )
        return records

    def state(self) -> Record:
        return {"saes": [_tensors(state) for state in self.states]}

    def restore(self, state: Record) -> None:
        for sae, saved in zip(self.states, state["saes"], strict=True):
            sae.last_active.copy_(saved["last_active"])
            for name in ("weights", "means", "mean_squares"):
                for key, tensor in getattr(sae, name).items():
                    tensor.copy_(saved[name][key])


def _tensors(state: SAEState) -> Record:
    return {
        "weights": state.weights,
        "means": state.means,
        "mean_squares": state.mean_squares,
        "last_active": state.last_active,
    }


@torch.inference_mode()
def calibrated_factor(sae: SparseAutoencoder, rows: Rows) -> float:
    """Factor of the thresholds with which exactly k latents a row are active on average on these rows.

    It is 0 if no factor lets so many pass.
    """
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


def _pieces(rows: Rows, batch_size: int) -> Pieces | None:
    """How rows that are larger than `IN_MEMORY_BYTES` are read."""
    row_bytes = 4 * rows.embeddings.shape[1]
    if len(rows) * row_bytes <= IN_MEMORY_BYTES:
        return None
    n_rows = max(1, _PIECE_BYTES // row_bytes)
    return Pieces(n_rows, max(1, _WINDOW_BYTES // (n_rows * row_bytes), -(-2 * batch_size // n_rows)))


def _gathers(rows: Rows, standardisation: Standardisation, device: str, pieces: Pieces | None) -> Gathers:
    """Readers of rows z by their positions; they return them by ascending position, as disks like to be read."""

    def reader(take: Callable[[NDArray[np.intp]], NDArray[np.float32]]) -> Gather:
        def gather(positions: NDArray[np.intp]) -> Tensor:
            x = take(np.sort(positions))
            x -= standardisation.mean
            x *= np.asarray(1 / standardisation.scale, dtype=np.float32)
            return torch.from_numpy(x).to(device)

        return gather

    anywhere = reader(rows.take)
    shape = (len(rows), rows.embeddings.shape[1])
    if device != "cpu" and fits(4 * math.prod(shape), device):
        resident, n_done = torch.empty(shape, device=device), 0
        for part in np.array_split(np.arange(len(rows)), 64):
            resident[n_done : n_done + len(part)] = anywhere(part)
            n_done += len(part)

        def on_device(positions: NDArray[np.intp]) -> Tensor:
            return resident[torch.from_numpy(np.sort(positions)).to(device, non_blocking=True)]

        return Gathers(on_device, on_device)
    return Gathers(anywhere, anywhere if pieces is None else reader(HeldPieces(rows, pieces).take))


def _start(settings: Sequence[SAESettings], gather: Gather, course: Course, device: str) -> list[SAEState]:
    """States before the first step, on the device."""
    silent_after = recipe.silent_after(course.n_steps, course.batches_per_epoch)
    speeds = column_speeds(gather, course.n_rows)
    states: list[SAEState] = []
    for one in settings:
        weights = start_weights(one, gather, course.n_rows)
        weights = {name: tensor.to(device) for name, tensor in weights.items()}
        states.append(new_state(one, weights, silent_after, speeds))
    return states


def choose_steps(states: Sequence[SAEState], device: str) -> Steps:
    """Steps of these SAEs: by the kernels for those that have some, on the CPU; by reference.py for the others."""
    fast = [i for i, state in enumerate(states) if device == "cpu" and state.settings.has_kernels]
    plain = [i for i in range(len(states)) if i not in fast]
    take_plain = one_by_one(reference.make_step([states[i] for i in plain]))
    if not fast:
        return take_plain
    from sfnetlab.training.sae.kernels.step import make_steps

    take_fast = make_steps([states[i] for i in fast])
    if not plain:
        return take_fast

    def steps(batches: Sequence[Tensor], rates: Sequence[Sequence[Rates]], first: int) -> Tensor:
        sums = torch.empty(len(batches), len(states), 3)
        for take, places in ((take_fast, fast), (take_plain, plain)):
            sums[:, places] = take(batches, [[of_step[i] for i in places] for of_step in rates], first)
        return sums

    return steps
