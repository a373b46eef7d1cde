"""Training of a network on cutouts, and running one, trained or frozen, over many cutouts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sfnetlab.errors import DataError
from sfnetlab.metrics.quantiles import pinball_losses
from sfnetlab.models.backbones import ImageEncoder, input_convention, make_backbone
from sfnetlab.models.sfnet import SparseFeatureNetwork
from sfnetlab.settings import Training
from sfnetlab.surveys.images import N_DIHEDRAL, channel_statistics, random_dihedral
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

    Pixels, as the network is shown them, and targets are standardised with the statistics of the training rows. The
    loss is pooled over outputs; that of a network of quantiles is the pinball loss, whatever the settings say.

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
        (each output; of quantiles both are of the median, and `valid_pinball` is their loss in label units),
        `images_per_s` and `seconds` (of training, without validation).

    Raises
    ------
    DataError
        If a target of a row in use is not finite or is the same in all training rows, or there is no valid row.
    TrainingError, ArtifactError
        See `loop.train`.
    """
    network.to(device=device, memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    check_targets(targets, train_rows, valid_rows)
    if not checkpoint.exists():  # else the statistics are in it
        pixel_mean, pixel_std = shown_statistics(network, images, train_rows, device)
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


def shown_statistics(
    network: SparseFeatureNetwork, images: NDArray[np.uint8], rows: NDArray[np.integer], device: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`channel_statistics` of what the network is shown of the rows."""
    view = network.encoder.view
    if view is None:
        return channel_statistics(images, rows)
    n, total, squares = 0, np.zeros(3), np.zeros(3)
    for shown in embed_batches(view.eval(), images, np.sort(rows), device=device):
        pixels = shown.reshape(-1, 3).astype(np.float64) / 255
        n, total, squares = n + len(pixels), total + pixels.sum(axis=0), squares + (pixels**2).sum(axis=0)
    mean = total / n
    return mean, np.sqrt(np.clip(squares / n - mean**2, 0, None))


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


def embed_turned(
    encode: Callable[[Tensor], Tensor], images: NDArray[np.uint8], rows: NDArray[np.integer], *, device: str
) -> Iterator[Iterator[NDArray[np.float32]]]:
    """`embed_batches` under each of the 8 symmetries of square cutouts, in the order of `surveys.images.dihedral`.

    Test-time augmentation: the mean of what is predicted from each no longer knows how a galaxy lies on the sky.
    """
    for op in range(N_DIHEDRAL):

        def turned(batch: Tensor, op: int = op) -> Tensor:
            rotated = torch.rot90(batch, op % 4, dims=(1, 2))
            return encode(rotated.flip(2) if op >= 4 else rotated)

        yield embed_batches(turned, images, rows, device=device)


def frozen_encoder(
    backbone: str,
    weights: str | Path,
    seed: int | None,
    image_size: int | None,
    images: NDArray[np.uint8],
    train_rows: NDArray[np.integer],
) -> ImageEncoder:
    """A backbone that is not trained here, ready to embed cutouts; parameters and errors as `make_backbone`.

    Pixels are standardised, and features pooled, as conventions.py says for its weights. Random weights have no
    convention for pixels: they get the channel statistics of the train rows of `images`. `image_size` None is the
    convention's size for models of the hub and of Zoobot; for timm's it is the survey's.
    """
    if weights == "random":
        mean, std = (values.tolist() for values in channel_statistics(images, train_rows))
        return ImageEncoder(make_backbone(backbone, weights, seed, image_size), mean, std, image_size).eval()
    convention = input_convention(backbone)
    side = image_size or convention.image_size
    return ImageEncoder(
        make_backbone(backbone, weights, seed, side),
        convention.mean,
        convention.std,
        side,
        resampling=convention.resampling,
        pooling=convention.pooling,
        source=convention.source,
    ).eval()


class _NetworkLearner:
    at_once = 1

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

    def learn(self, batches: Sequence[NDArray[np.intp]], step: int) -> Tensor:
        (rows,) = batches
        batch = self.train_rows[rows]
        images = self.images[batch]
        if self.settings.augment:
            images = random_dihedral(images, generator(self.course.seed, AUGMENTATION, step))
        labels = torch.from_numpy(self.targets[batch]).to(self.device, torch.float32)
        standardised = (labels - self.network.target_mean) / self.network.target_std

        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.course.n_steps, self.settings)
        error = self._error(self.network(_on_device(images, self.device)), standardised)
        self.optimizer.zero_grad()
        self._loss(error).backward()
        self.optimizer.step()
        return (error.detach() * len(rows))[None, None]

    def records(self, sums: NDArray[np.float64], step: int) -> list[Record]:
        self.network.eval()
        batches = embed_batches(self.network.predict, self.images, self.valid_rows, device=self.device)
        predicted = np.concatenate(list(batches))
        self.network.train()
        truth = self.targets[self.valid_rows]
        quantiles = self.network.quantiles
        values = predicted[:, [quantiles.index(0.5)]] if quantiles else predicted
        squared_error = np.square(values - truth, dtype=np.float64)
        record = {
            "learning_rate": learning_rate_at(step - 1, self.course.n_steps, self.settings),
            "train_loss": float(self._loss(torch.tensor(sums[0] / self.course.n_rows))),
            "valid_rmse": float(np.sqrt(squared_error.mean())),
            "valid_rmse_columns": np.sqrt(squared_error.mean(axis=0)).tolist(),
        }
        if quantiles:
            record["valid_pinball"] = float(pinball_losses(truth[:, 0], predicted, quantiles).mean())
        return [record]

    def _error(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Mean squared error, pooled over outputs; of quantiles the mean pinball loss of Koenker & Bassett 1978."""
        if not self.network.quantiles:
            return (outputs - truth).square().mean()
        levels = torch.tensor(self.network.quantiles, device=outputs.device)
        below = truth - outputs
        return torch.maximum(levels * below, (levels - 1) * below).mean()

    def _loss(self, error: Tensor) -> Tensor:
        if self.network.quantiles or self.settings.loss == "mse":
            return error
        return error.clamp(min=1e-12).sqrt()  # the root's slope at zero is infinite

    def state(self) -> Record:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Record) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def _on_device(images: NDArray[np.uint8], device: str) -> Tensor:
    return torch.from_numpy(np.asarray(images)).to(device)


def check_targets(
    targets: NDArray[np.floating], train_rows: NDArray[np.integer], valid_rows: NDArray[np.integer]
) -> None:
    """Refuse targets that a network can't be trained on, see `train_network`."""
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
