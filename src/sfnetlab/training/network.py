"""Training of a network on cutouts, and running one, trained or frozen, over many cutouts."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sfnetlab.errors import DataError
from sfnetlab.models.backbones import ImageEncoder, make_backbone, normalisation
from sfnetlab.models.sfnet import SparseFeatureNetwork
from sfnetlab.schema import Training
from sfnetlab.surveys.images import channel_statistics, random_dihedral
from sfnetlab.training.loop import AUGMENTATION, Course, Record, Report, generator, train
from sfnetlab.training.optimizers import learning_rate_at, make_optimizer


def train_network(
    network: SparseFeatureNetwork,
    images: NDArray[np.uint8],
    targets: NDArray[np.floating],
    train_rows: NDArray[np.integer],
    valid_rows: NDArray[np.integer],
    settings: Training,
    *,
    seed: int,
    device: str,
    checkpoint: Path,
    report: Report,
) -> list[Record]:
    """Train a network in place; afterwards it is on the device and ready to predict.

    Pixels and targets are standardised with the statistics of the training rows. The loss is pooled over outputs.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, side, side, 3)
        May be memory-mapped.
    targets : ndarray of shape (n, n_outputs)
        In label units; only the rows in use need be finite.
    train_rows, valid_rows
        Rows to learn from, and to score each epoch on.
    seed
        Of the order of rows and the augmentation. The network's own start is its maker's.
    checkpoint
        Where the run's state is kept; a run that finds it goes on from there, see `loop.train`.
    report
        Gets the history after every epoch.

    Returns
    -------
    list of dict
        A record an epoch: `epoch` (from 1), `step`, `learning_rate`, `train_loss` (over the epoch, in standard
        deviations, root or not as the loss), `valid_rmse` (label units, pooled over outputs), `valid_rmse_columns`
        (each output), `images_per_s` and `seconds` (of training, without validation).

    Raises
    ------
    DataError
        If a target of a row in use is not finite or is the same in all training rows, or there is no valid row.
    TrainingError, ArtifactError
        See `loop.train`.
    """
    network.to(device=device, memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    _check_targets(targets, train_rows, valid_rows)
    if not checkpoint.exists():  # else the statistics are in it
        pixel_mean, pixel_std = channel_statistics(images, train_rows)
        network.set_statistics(
            pixel_mean=pixel_mean,
            pixel_std=np.where(pixel_std > 0, pixel_std, 1.0),
            target_mean=targets[train_rows].mean(axis=0),
            target_std=targets[train_rows].std(axis=0),
        )
    course = Course(
        n_rows=len(train_rows),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=seed,
        checkpoint=checkpoint,
        settings=asdict(settings) | {"seed": seed, "n_train": len(train_rows), "k": network.k},
        label=f"{network.backbone_name} k={network.k or 'all'} seed={seed}",
        unit="image",
        smallest_batch=2,
    )
    learner = _NetworkLearner(network, images, targets, train_rows, valid_rows, settings, course, device)
    history = train(learner, course, report)
    network.eval()
    return history


def embed_batches(
    encode: Callable[[Tensor], Tensor],
    images: NDArray[np.uint8],
    rows: NDArray[np.integer] | None = None,
    *,
    batch_size: int = 256,
    device: str,
) -> Iterator[NDArray[np.float32]]:
    """What a network gives for cutouts, batch by batch, in the order of `rows` (default: all).

    Parameters
    ----------
    encode
        An `ImageEncoder`, or `features` or `predict` of a network: uint8 (n, side, side, 3) to (n, d), on the device.
    images : ndarray of uint8, shape (n, side, side, 3)
        May be memory-mapped; read a batch at a time.

    Raises
    ------
    ValueError
        If there are no rows, or the network is in training mode, where rows of a batch influence each other.
    """
    owner = getattr(encode, "__self__", encode)
    if isinstance(owner, nn.Module) and owner.training:
        raise ValueError("the network is in training mode: call .eval() first")
    chosen = np.arange(len(images)) if rows is None else rows
    if len(chosen) == 0:
        raise ValueError("no rows to embed")
    for start in range(0, len(chosen), batch_size):
        batch = _on_device(images[chosen[start : start + batch_size]], device)
        with torch.inference_mode():
            values = encode(batch).float().cpu().numpy()
        yield values


def frozen_encoder(
    backbone: str,
    weights: str | Path,
    seed: int | None,
    image_size: int | None,
    images: NDArray[np.uint8],
    train_rows: NDArray[np.integer],
) -> ImageEncoder:
    """A timm backbone that is not trained here, ready to embed cutouts; parameters and errors as `make_backbone`.

    Pixels are standardised as its weights were trained. Random weights have no convention: they get the channel
    statistics of the train rows of `images`.
    """
    model = make_backbone(backbone, weights, seed, image_size)
    if weights == "random":
        mean, std = (values.tolist() for values in channel_statistics(images, train_rows))
    else:
        mean, std = normalisation(backbone)
    return ImageEncoder(model, mean, std, image_size).eval()


class _NetworkLearner:
    def __init__(
        self,
        network: SparseFeatureNetwork,
        images: NDArray[np.uint8],
        targets: NDArray[np.floating],
        train_rows: NDArray[np.integer],
        valid_rows: NDArray[np.integer],
        settings: Training,
        course: Course,
        device: str,
    ) -> None:
        self.network = network.train()
        self.optimizer = make_optimizer(network, settings)
        self.images, self.targets = images, targets
        self.train_rows, self.valid_rows = train_rows, valid_rows
        self.settings, self.course, self.device = settings, course, device

    def step(self, rows: NDArray[np.intp], step: int) -> Tensor:
        batch = self.train_rows[rows]
        images = self.images[batch]
        if self.settings.augment:
            images = random_dihedral(images, generator(self.course.seed, AUGMENTATION, step))
        labels = torch.from_numpy(self.targets[batch]).to(self.device, torch.float32)
        standardised = (labels - self.network.target_mean) / self.network.target_std

        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.course.n_steps, self.settings)
        squared_error = (self.network(_on_device(images, self.device)) - standardised).square().mean()
        self.optimizer.zero_grad()
        self._loss(squared_error).backward()
        self.optimizer.step()
        return (squared_error.detach() * len(rows))[None]

    def records(self, sums: NDArray[np.float64], step: int) -> list[Record]:
        self.network.eval()
        batches = embed_batches(self.network.predict, self.images, self.valid_rows, device=self.device)
        predicted = np.concatenate(list(batches))
        self.network.train()
        squared_error = np.square(predicted - self.targets[self.valid_rows], dtype=np.float64)
        record = {
            "learning_rate": learning_rate_at(step - 1, self.course.n_steps, self.settings),
            "train_loss": float(self._loss(torch.tensor(sums[0] / self.course.n_rows))),
            "valid_rmse": float(np.sqrt(squared_error.mean())),
            "valid_rmse_columns": np.sqrt(squared_error.mean(axis=0)).tolist(),
        }
        return [record]

    def _loss(self, squared_error: Tensor) -> Tensor:
        if self.settings.loss == "mse":
            return squared_error
        return squared_error.clamp(min=1e-12).sqrt()  # the root's slope at zero is infinite

    def state(self) -> Record:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Record) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def _on_device(images: NDArray[np.uint8], device: str) -> Tensor:
    return torch.from_numpy(np.asarray(images)).to(device)


def _check_targets(
    targets: NDArray[np.floating], train_rows: NDArray[np.integer], valid_rows: NDArray[np.integer]
) -> None:
    if len(valid_rows) == 0:
        raise DataError("no validation rows have this target: every epoch is scored on them; enlarge their share")
    for name, rows in (("train", train_rows), ("valid", valid_rows)):
        bad = rows[~np.isfinite(targets[rows]).all(axis=1)]
        if len(bad):
            raise DataError(
                f"targets of {len(bad)} of {len(rows)} {name} rows are not finite (first: row {bad[0]}); cut them"
            )
    constant = np.flatnonzero(np.ptp(targets[train_rows], axis=0) == 0)
    if len(constant):
        raise DataError(f"target column {constant[0]} has one value in all {len(train_rows)} train rows")
