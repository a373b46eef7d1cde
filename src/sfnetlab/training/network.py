"""Training of a network on cutouts, and running a network, trained or frozen, over many cutouts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sfnetlab.errors import DataError
from sfnetlab.metrics.quantiles import pinball_losses
from sfnetlab.models.backbones import ImageEncoder, input_convention, make_backbone
from sfnetlab.models.sfnet import SparseFeatureNetwork
from sfnetlab.runtime import Precision
from sfnetlab.surveys.images import N_DIHEDRAL, channel_statistics
from sfnetlab.training.batches import Cutouts, to_device
from sfnetlab.training.learner import ModuleLearner
from sfnetlab.training.loop import Course, Record, Report, train
from sfnetlab.training.optimizers import Optimization
from sfnetlab.training.penalties import Penalty, penalties_of

Loss = Literal["rmse", "mse"]
UNPENALISED: Mapping[Penalty, float] = MappingProxyType({})


def train_network(
    network: SparseFeatureNetwork,
    images: NDArray[np.uint8],
    targets: NDArray[np.floating],
    train_rows: NDArray[np.integer],
    valid_rows: NDArray[np.integer],
    *,
    epochs: int,
    batch_size: int,
    optimization: Optimization,
    loss: Loss,
    augment: bool,
    precision: Precision,
    seed: int,
    device: str,
    checkpoint: Path,
    report: Report,
    penalties: Mapping[Penalty, float] = UNPENALISED,
) -> list[Record]:
    """Train a network in place and return the history; the network is then on the device and ready to predict.

    Pixels, as the network is shown them, and targets are standardised with the statistics of the training rows. The
    loss is pooled over outputs. A network of quantiles is trained with the pinball loss, whatever `loss` says.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, side, side, 3)
        May be memory-mapped.
    targets : ndarray of shape (n, n_outputs)
        In label units; only the rows in use need be finite.
    train_rows, valid_rows
        Rows to learn from, and to score each epoch on.
    loss
        Mean squared error of a batch, or its root.
    augment
        Flip and turn each cutout at random.
    precision
        In what the trunk multiplies while it learns; each epoch is scored in float32, as the network is used later.
        It is no part of a checkpoint's identity, as the device is none.
    seed
        Seed of the order of rows and of the augmentation. The network's first weights do not depend on it.
    checkpoint, report
        Where the run's state is kept, and what gets the history after every epoch: see `loop.train`.
    penalties
        Weights of what is added to the loss of a batch, by name: see penalties.py. For a network with k only.

    Returns
    -------
    list of dict
        A record an epoch: `epoch` (from 1), `step`, `learning_rate`, `train_loss` (over the epoch, in standard
        deviations, root or not as the loss), `valid_rmse` (label units, pooled over outputs), `valid_rmse_columns`
        (each output), `precision`, `images_per_s` and `seconds` (of training, without validation). For a network of
        quantiles both RMSEs are those of the median, and `valid_pinball` is the pinball loss in label units. Each of
        `penalties` has its mean over the epoch, before it is weighed; `train_loss` is without them.

    Raises
    ------
    DataError
        If a target of a row in use is not finite or is the same in all training rows, or there is no valid row.
    TrainingError, ArtifactError
        See `loop.train`.
    """
    network.to(device=device, memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    network.encoder.precision = precision
    check_targets(targets, train_rows, valid_rows)
    if not checkpoint.exists():  # else the statistics are in it
        _set_statistics(network, images, targets, train_rows, device)
    course = Course(
        n_rows=len(train_rows),
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
        checkpoint=checkpoint,
        settings=asdict(optimization) | {"loss": loss, "augment": augment, "k": network.k} | dict(penalties),
        label=f"{network.backbone_name} k={network.k or 'all'} seed={seed}",
        unit="image",
        smallest_batch=2,
    )
    learner = ModuleLearner(
        network,
        course,
        optimization,
        rows=train_rows,
        read=partial(_read, Cutouts.of(images, device), targets, augment=augment),
        batch_loss=partial(_batch_loss, network, loss=loss, penalties=penalties),
        scores=partial(_scores, network, images, targets, valid_rows, loss=loss, penalties=penalties, device=device),
        reads_ahead=device != "cpu",
    )
    history = train(learner, course, report)
    network.eval()
    return history


def shown_statistics(
    network: SparseFeatureNetwork, images: NDArray[np.uint8], rows: NDArray[np.integer], device: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each channel, (3,), black 0 and white 1, over what the network is shown.

    They are `channel_statistics` of the rows, after the network's view of them.
    """
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
    """Yield what a network gives for cutouts, batch by batch, in the order of `rows` (default: all).

    Parameters
    ----------
    encode
        An `ImageEncoder`, or the `features` or `predict` of a network: uint8 (n, side, side, 3) to (n, d), on the
        device.
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
        batch = to_device(images[chosen[start : start + batch_size]], device)
        with torch.inference_mode():
            values = encode(batch).float().cpu().numpy()
        yield values


def embed_turned(
    encode: Callable[[Tensor], Tensor], images: NDArray[np.uint8], rows: NDArray[np.integer], *, device: str
) -> Iterator[Iterator[NDArray[np.float32]]]:
    """Yield `embed_batches` of turned cutouts for each of the 8 symmetries of a square, in the order of `dihedral`.

    This is test-time augmentation: the mean over the symmetries does not depend on how a galaxy lies on the sky.
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
    """Return a backbone that is not trained here, ready to embed cutouts.

    Parameters and errors are those of `make_backbone`. Pixels are standardised, and features pooled, as conventions.py
    says for the weights. Random weights have no convention for pixels: they get the channel statistics of the train
    rows of `images`. With `image_size` None, models of the hub and of Zoobot take the size of their convention, and
    timm's take cutouts as they come.
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


def root(error: Tensor) -> Tensor:
    """Return the square root of a mean squared error; at a perfect fit its slope is zero instead of infinite."""
    return error.clamp(min=1e-12).sqrt()


def _set_statistics(
    network: SparseFeatureNetwork,
    images: NDArray[np.uint8],
    targets: NDArray[np.floating],
    rows: NDArray[np.integer],
    device: str,
) -> None:
    """Standardise pixels, as the network is shown them, and targets with the statistics of some rows."""
    pixel_mean, pixel_std = shown_statistics(network, images, rows, device)
    network.set_statistics(
        pixel_mean=pixel_mean,
        pixel_std=np.where(pixel_std > 0, pixel_std, 1.0),
        target_mean=targets[rows].mean(axis=0),
        target_std=targets[rows].std(axis=0),
    )


def _read(
    cutouts: Cutouts,
    targets: NDArray[np.floating],
    rows: NDArray[np.integer],
    rng: np.random.Generator,
    *,
    augment: bool,
) -> tuple[Tensor, Tensor]:
    """Return cutouts and targets of some rows, on the device."""
    ops = rng.integers(N_DIHEDRAL, size=len(rows)) if augment else None
    return cutouts.take(rows, ops), to_device(targets[rows].astype(np.float32), cutouts.device)


def _batch_loss(
    network: SparseFeatureNetwork, inputs: tuple[Tensor, Tensor], *, loss: Loss, penalties: Mapping[Penalty, float]
) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch, and the terms of the history: its error, then its penalties."""
    cutouts, labels = inputs
    standardised = (labels - network.target_mean) / network.target_std
    pooled = network.encoder(cutouts)
    error = _error(network.read_pooled(pooled), standardised, network.quantiles)
    if network.k is None or not penalties:
        return _loss(error, network, loss), error[None]
    terms = penalties_of(pooled, network.k, penalties)
    weighed = terms @ torch.tensor(list(penalties.values()), device=terms.device)
    return _loss(error, network, loss) + weighed, torch.cat([error[None], terms])


def _scores(
    network: SparseFeatureNetwork,
    images: NDArray[np.uint8],
    targets: NDArray[np.floating],
    valid_rows: NDArray[np.integer],
    terms: NDArray[np.float64],
    *,
    loss: Loss,
    penalties: Mapping[Penalty, float],
    device: str,
) -> Record:
    """Return loss and penalties over an epoch, from its mean terms, and errors of valid rows, see `train_network`."""
    predicted = np.concatenate(list(embed_batches(network.predict, images, valid_rows, device=device)))
    truth = targets[valid_rows]
    quantiles = network.quantiles
    values = predicted[:, [quantiles.index(0.5)]] if quantiles else predicted
    squared_error = np.square(values - truth, dtype=np.float64)
    record: Record = {
        "train_loss": float(_loss(torch.tensor(terms[0]), network, loss)),
        "valid_rmse": float(np.sqrt(squared_error.mean())),
        "valid_rmse_columns": np.sqrt(squared_error.mean(axis=0)).tolist(),
        "precision": network.encoder.precision,
    } | dict(zip(penalties, terms[1:].tolist(), strict=True))
    if quantiles:
        record["valid_pinball"] = float(pinball_losses(truth[:, 0], predicted, quantiles).mean())
    return record


def _loss(error: Tensor, network: SparseFeatureNetwork, loss: Loss) -> Tensor:
    """Return what is minimised: the error, or its root where the network predicts values and `loss` says so."""
    return error if network.quantiles or loss == "mse" else root(error)


def _error(outputs: Tensor, truth: Tensor, quantiles: Sequence[float]) -> Tensor:
    """Return the mean squared error, pooled over outputs, or the mean pinball loss of quantiles.

    References
    ----------
    Koenker & Bassett 1978, Econometrica 46, 33 (pinball loss).
    """
    if not quantiles:
        return (outputs - truth).square().mean()
    levels = _levels(tuple(quantiles), str(outputs.device))
    below = truth - outputs
    return torch.maximum(levels * below, (levels - 1) * below).mean()


@cache
def _levels(quantiles: tuple[float, ...], device: str) -> Tensor:
    return torch.tensor(quantiles, device=device)


def check_targets(
    targets: NDArray[np.floating], train_rows: NDArray[np.integer], valid_rows: NDArray[np.integer]
) -> None:
    """Raise a DataError if a network cannot be trained on these targets, see `train_network`."""
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
