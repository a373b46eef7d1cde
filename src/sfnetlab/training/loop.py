"""The one training loop: batches, checkpoints, resuming, the guard against non-finite numbers, progress.

What a step does is the learner's: learner.py for networks and autoencoders, sae/trainer.py for sparse autoencoders.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sfnetlab.errors import ArtifactError, TrainingError
from sfnetlab.training.checkpoint import read_checkpoint, write_checkpoint

log = logging.getLogger(__name__)

CHECKPOINT_INTERVAL_S = 10.0
LOG_INTERVAL_S = 60.0
"""Least time between two epochs that the log tells of; it always tells of the last one, and with -v of each."""
_STEPS_BETWEEN_CHECKS = 10
_ORDER, AUGMENTATION, START, RESAMPLING = range(4)
"""First part of a generator's key: what its random numbers are for."""

Record = dict[str, Any]
Report = Callable[[Sequence[Record]], None]


def generator(seed: int, *key: int) -> np.random.Generator:
    """Return a generator that depends on the seed and on what it is for, not on what was drawn before."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


class Learner(Protocol):
    """What the loop trains. Its randomness may only depend on its seed and the step."""

    at_once: int
    """Largest number of batches that `learn` is given."""

    def learn(self, batches: Sequence[NDArray[np.intp]], step: int) -> Tensor:
        """Learn from batches, one after another, and return sums over each batch, (len(batches), n_sums).

        `step` is the number of batches before the first. Sums are not finite where a step went wrong.
        """
        ...

    def records(self, sums: NDArray[np.float64], step: int) -> list[Record]:
        """Return an epoch's entries in the history, one for each model.

        `sums` (n_sums,) are added up over the epoch, and `step` is the number of steps done.
        """
        ...

    def state(self) -> Record:
        """Return what a checkpoint must hold, see `write_checkpoint`."""
        ...

    def restore(self, state: Record) -> None:
        """Go back to a state that `state` returned."""
        ...


class Pieces(NamedTuple):
    """Rows that are read together."""

    n_rows: int
    """Consecutive rows of a piece."""
    n_pieces: int
    """Pieces of a window."""

    def order(self, n: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Return a permutation of n rows: pieces in random order, the rows of each window of them mixed."""
        starts = rng.permutation(math.ceil(n / self.n_rows)) * self.n_rows
        windows = (starts[first : first + self.n_pieces] for first in range(0, len(starts), self.n_pieces))
        rows = [(window[:, None] + np.arange(self.n_rows)).ravel() for window in windows]
        return np.concatenate([rng.permutation(window[window < n]) for window in rows])


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a learner goes through its rows.

    In each epoch the rows are permuted by a function of (seed, epoch) and dealt into ceil(n_rows / batch_size)
    batches whose sizes differ by at most one: none is ragged, each row is seen once. `smallest_batch` = 2 is for batch
    normalisation, which a batch of one row breaks; fewer, larger batches are dealt where that is needed.

    Rows that do not fit into memory are permuted in `pieces`: pieces of consecutive rows come in random order, and
    those of a window, as many as are held at a time, are mixed row by row.
    """

    n_rows: int
    batch_size: int
    epochs: int
    seed: int
    checkpoint: Path | None
    """Where the run's state is kept; None: nowhere, and a run that is killed is lost."""
    settings: Record
    """What else tells this run's checkpoint from that of another, beside the sizes and the seed above."""
    label: str
    """What progress and errors call the run."""
    unit: str
    """What a row is, for the rate in the history: "image" gives `images_per_s`."""
    smallest_batch: int = 1
    pieces: Pieces | None = None
    """None: all rows are permuted at once."""

    def __post_init__(self) -> None:
        if self.n_rows < self.smallest_batch:
            raise ValueError(f"{self.label}: needs at least {self.smallest_batch} training rows, got {self.n_rows}")

    @property
    def identity(self) -> Record:
        """What the checkpoint of another run would differ in."""
        sizes = {"n_rows": self.n_rows, "batch_size": self.batch_size, "epochs": self.epochs, "seed": self.seed}
        order: Record = {} if self.pieces is None else {"pieces": list(self.pieces)}
        return sizes | self.settings | order

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches, and so of steps, in an epoch."""
        return min(math.ceil(self.n_rows / self.batch_size), self.n_rows // self.smallest_batch)

    @property
    def n_steps(self) -> int:
        """Number of steps in the run."""
        return self.epochs * self.batches_per_epoch

    def batches(self, epoch: int) -> list[NDArray[np.intp]]:
        """Return the batches of an epoch, counted from 0: positions among the training rows."""
        rng = generator(self.seed, _ORDER, epoch)
        order = rng.permutation(self.n_rows) if self.pieces is None else self.pieces.order(self.n_rows, rng)
        return np.array_split(order, self.batches_per_epoch)


class EpochLog:
    """What the log tells of a training where no progress bar shows it: its start, its end, an epoch a minute."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._told_at = time.monotonic()
        log.info("%s: %d epochs of %d steps", course.label, course.epochs, course.batches_per_epoch)

    def tell(self, epoch: int, numbers: str) -> None:
        """Tell what an epoch, counted from 1, ended with."""
        is_told = epoch == self._course.epochs or time.monotonic() - self._told_at >= LOG_INTERVAL_S
        if is_told:
            self._told_at = time.monotonic()
        level = logging.INFO if is_told else logging.DEBUG
        log.log(level, "%s: epoch %d/%d %s", self._course.label, epoch, self._course.epochs, numbers)


@dataclass
class _Run:
    """How far a run has come: everything of the loop that a checkpoint holds."""

    step: int = 0
    sums: list[float] = field(default_factory=list)
    training_s: float = 0.0
    history: list[Record] = field(default_factory=list)


def train(learner: Learner, course: Course, report: Report) -> list[Record]:
    """Take a learner through its course, from the checkpoint if there is one, and return the history.

    The history has a record for each epoch and model. A checkpoint is written every 10 s, between two steps, and at
    the end. On the CPU a run that was killed and goes on from it ends bit for bit where an uninterrupted one does.
    `report` gets the history after every epoch.

    Raises
    ------
    TrainingError
        If a loss or a weight is not finite; the checkpoint is then the last good one.
    ArtifactError
        If the checkpoint is damaged or belongs to another run.
    """
    run = _Run()
    if course.checkpoint is not None and course.checkpoint.exists():
        run = _resume(learner, course, course.checkpoint)
        log.info("%s: goes on at step %d of %d", course.label, run.step, course.n_steps)
        report(run.history)
    saved_at = time.monotonic()
    pending: list[Tensor] = []  # sums that are still on the device: reading each at once would make the device wait
    hidden = None if log.isEnabledFor(logging.INFO) else True
    with tqdm(total=course.n_steps, initial=run.step, desc=course.label, disable=hidden) as bar:
        epoch_log = EpochLog(course) if bar.disable else None
        for batches in _remaining(course, run.step, learner.at_once):
            started = time.perf_counter()
            pending.append(learner.learn(batches, run.step))
            run.step += len(batches)
            ends_epoch = run.step % course.batches_per_epoch == 0
            is_due = run.step == course.n_steps or time.monotonic() - saved_at > CHECKPOINT_INTERVAL_S
            if ends_epoch or is_due or sum(map(len, pending)) >= _STEPS_BETWEEN_CHECKS:
                _collect(run, pending, course)
            run.training_s += time.perf_counter() - started
            if ends_epoch:
                _end_epoch(run, learner, course, bar, epoch_log)
            if is_due:
                _save(run, learner, course)
                saved_at = time.monotonic()
            if ends_epoch:
                report(run.history)
            bar.update(len(batches))
    return run.history


def _remaining(course: Course, step: int, at_once: int) -> Iterator[list[NDArray[np.intp]]]:
    first_epoch, n_done = divmod(step, course.batches_per_epoch)
    for epoch in range(first_epoch, course.epochs):
        batches = course.batches(epoch)
        for start in range(n_done if epoch == first_epoch else 0, len(batches), at_once):
            yield batches[start : start + at_once]


def _collect(run: _Run, pending: list[Tensor], course: Course) -> None:
    values = torch.cat(pending).cpu().double()
    first = run.step - len(values)
    pending.clear()
    for offset, sums in enumerate(values.tolist()):
        if not all(map(math.isfinite, sums)):
            raise _diverged(course, f"the loss of step {first + offset} of {course.n_steps} is not finite")
        run.sums = [a + b for a, b in zip(run.sums or [0.0] * len(sums), sums, strict=True)]


def _end_epoch(run: _Run, learner: Learner, course: Course, bar: "tqdm[Any]", epoch_log: EpochLog | None) -> None:
    epoch = run.step // course.batches_per_epoch
    about = {"epoch": epoch, "step": run.step}
    speed = {f"{course.unit}s_per_s": course.n_rows / run.training_s, "seconds": run.training_s}
    records = [about | record | speed for record in learner.records(np.array(run.sums), run.step)]
    run.history.extend(records)
    run.sums.clear()
    run.training_s = 0.0
    record = records[-1]
    numbers = {name: f"{value:.4g}" for name, value in record.items() if isinstance(value, float)}
    bar.set_postfix(numbers)
    if epoch_log is not None:
        epoch_log.tell(epoch, " ".join(map("=".join, numbers.items())))


def _save(run: _Run, learner: Learner, course: Course) -> None:
    state = learner.state()
    if not _is_finite(state):
        raise _diverged(course, f"the weights after step {run.step - 1} of {course.n_steps} are not finite")
    if course.checkpoint is not None:
        write_checkpoint(course.checkpoint, {"identity": course.identity, "run": vars(run), "learner": state})


def _resume(learner: Learner, course: Course, checkpoint: Path) -> _Run:
    saved = read_checkpoint(checkpoint)
    theirs, ours = saved["identity"], course.identity
    if theirs != ours:
        changed = sorted(key for key in ours if theirs.get(key) != ours[key])
        raise ArtifactError(
            f"{checkpoint}: belongs to a run with other settings ({', '.join(changed)}); "
            f"remove it to train from the start"
        )
    learner.restore(saved["learner"])
    return _Run(**saved["run"])


def _is_finite(state: Any) -> bool:
    if isinstance(state, Tensor):
        return not state.is_floating_point() or bool(state.isfinite().all())
    if isinstance(state, dict):
        return all(_is_finite(value) for value in state.values())
    return all(_is_finite(value) for value in state) if isinstance(state, (list, tuple)) else True


def _diverged(course: Course, what: str) -> TrainingError:
    kept = "no checkpoint"
    if course.checkpoint is not None and course.checkpoint.exists():
        kept = f"the last good checkpoint is {course.checkpoint}"
    return TrainingError(f"{course.label}: {what} ({kept}); lower the learning rate")
