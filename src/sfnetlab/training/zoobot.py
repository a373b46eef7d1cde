"""Fine-tuning of a pretrained encoder by Zoobot, which trains through Lightning.

Images come from our store, and the result is a network like any other that is trained here.
"""

# ruff: noqa: ARG002 - Lightning calls its hooks with all that it has

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sfnetlab.errors import ArtifactError, DataError, TrainingError
from sfnetlab.models.backbones import ImageEncoder
from sfnetlab.models.sfnet import SparseFeatureNetwork
from sfnetlab.surveys.images import random_dihedral
from sfnetlab.training.loop import AUGMENTATION, START, Course, EpochLog, Record, Report, generator
from sfnetlab.training.network import check_targets

try:
    from lightning import Callback, LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from zoobot.pytorch.training.finetune import FinetuneableZoobotRegressor
except ModuleNotFoundError as error:
    raise DataError(
        f'features of kind = "zoobot" need the package zoobot (GPL-3), which is not installed ({error}); install it '
        f"with `uv sync --extra zoobot`"
    ) from error

log = logging.getLogger(__name__)
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # below: advertisements, and what we say ourselves

LAST, BEST = "last", "best"
VALID_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What Zoobot is told about the training."""

    training_mode: Literal["full", "head_only"]
    """Which weights are trained: all, or those of the linear head."""
    layer_decay: float
    """Factor by which learning rates shrink from each of timm's groups of layers to the one below."""
    learning_rate: float
    """Constant rate of AdamW for the head."""
    weight_decay: float
    """Decoupled weight decay."""
    head_dropout: float
    """Share of the pooled features that are hidden from the head in a training step."""


@torch.random.fork_rng(devices=[])
def finetune(
    encoder: ImageEncoder,
    architecture: str,
    images: NDArray[np.uint8],
    targets: NDArray[np.floating],
    train_rows: NDArray[np.integer],
    valid_rows: NDArray[np.integer],
    *,
    epochs: int,
    batch_size: int,
    tuning: Tuning,
    augment: bool,
    seed: int,
    device: str,
    directory: Path,
    report: Report,
) -> tuple[SparseFeatureNetwork, list[Record]]:
    """Train an encoder further, with a linear head, and return the network and its history.

    Zoobot's own loss, optimiser and layer-wise learning rates are used. The loss is the squared error of targets that
    are standardised with the train rows, pooled over columns. Images keep the convention of the encoder; features are
    pooled as its model pools them. A run that is killed goes on from its last whole epoch and, on the CPU, ends where
    an uninterrupted one does.

    Parameters
    ----------
    encoder
        Where to start; it is trained in place.
    architecture
        Name of its model, by which `load_network` makes it again.
    images : ndarray of uint8, shape (n, side, side, 3)
        May be memory-mapped; read a batch at a time.
    targets : ndarray of shape (n, n_outputs)
        In label units; only the rows in use need be finite.
    augment
        Flip and turn each cutout at random.
    directory
        Folder of Lightning's checkpoints; no other run may use it.
    report
        Gets the history after every epoch.

    Returns
    -------
    network
        The network of the epoch with the least loss on valid rows, on the CPU and ready to predict.
    history : list of dict
        A record an epoch, as that of `train_network`; `valid_loss` is what chose the epoch.

    Raises
    ------
    DataError
        If a target of a row in use is not finite or is the same in all training rows, or there is no valid row.
    TrainingError
        If the loss is not finite.
    ArtifactError
        If a checkpoint cannot be read.
    """
    check_targets(targets, train_rows, valid_rows)
    mean, std = targets[train_rows].mean(axis=0), targets[train_rows].std(axis=0)
    course = Course(
        n_rows=len(train_rows),
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
        checkpoint=None,
        settings={},
        label=f"zoobot {architecture} seed={seed}",
        unit="image",
        smallest_batch=2,
    )
    encoder.pooling = "model"
    encoder.train()
    encoder.to(memory_format=torch.channels_last)
    module, head = _module_and_head(encoder, architecture, len(mean), tuning, seed)
    labels = ((targets - mean) / std).astype(np.float32)
    data = _Cutouts(encoder, images, labels, train_rows, valid_rows, course, augment=augment)
    watch = _Watch(course, std, report)
    module.load_state_dict(_fit(module, data, watch, course, device, directory))
    return _as_network(encoder, architecture, head, mean, std), watch.history


def _module_and_head(
    encoder: ImageEncoder, architecture: str, n_outputs: int, tuning: Tuning, seed: int
) -> tuple[LightningModule, nn.Linear]:
    """Return what Lightning trains, and the linear head in it."""
    module = FinetuneableZoobotRegressor(
        encoder=encoder.backbone,
        training_mode=tuning.training_mode,
        layer_decay=tuning.layer_decay,
        learning_rate=tuning.learning_rate,
        weight_decay=tuning.weight_decay,
        prog_bar=False,
        seed=seed,
    )
    # Zoobot's head has one output and drops its axis, so that a batch of one has another shape than its labels.
    head = SparseFeatureNetwork(encoder.backbone, architecture, n_outputs, None, seed).head
    module.head = nn.Sequential(nn.Dropout(tuning.head_dropout), head)  # pyrefly: ignore[bad-assignment]
    return module, head


def _as_network(
    encoder: ImageEncoder,
    architecture: str,
    head: nn.Linear,
    mean: NDArray[np.floating],
    std: NDArray[np.floating],
) -> SparseFeatureNetwork:
    """Return encoder and head as a dense network whose targets were standardised with `mean` and `std`."""
    network = SparseFeatureNetwork(
        encoder.backbone,
        architecture,
        len(mean),
        None,
        image_size=encoder.image_size,
        resampling=encoder.resampling,
    )
    network.head.load_state_dict(head.state_dict())
    network.set_statistics(
        pixel_mean=encoder.pixel_mean.numpy(force=True),
        pixel_std=encoder.pixel_std.numpy(force=True),
        target_mean=mean,
        target_std=std,
    )
    return network.cpu().eval()


def _fit(
    module: LightningModule, data: "_Cutouts", watch: "_Watch", course: Course, device: str, directory: Path
) -> dict[str, Tensor]:
    """Train, from the last checkpoint if there is one, and return the module's state after the best epoch."""
    keeper = ModelCheckpoint(
        dirpath=directory,
        filename=BEST,
        monitor="finetuning/val_loss",
        save_last=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    last = directory / f"{LAST}.ckpt"
    kind, _, index = device.partition(":")
    with warnings.catch_warnings():
        # Advice of Lightning (more workers: reading a memory map needs none), and NaN, of which we say more below.
        warnings.filterwarnings("ignore", module=r"(lightning|torchmetrics)\..*")
        trainer = Trainer(
            accelerator="gpu" if kind == "cuda" else kind,
            devices=[int(index)] if index else 1,
            max_epochs=course.epochs,
            callbacks=[watch, keeper],
            logger=False,
            default_root_dir=directory,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        if last.exists():
            log.info("%s: goes on after its last whole epoch", course.label)
        trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    try:
        best = torch.load(directory / f"{BEST}.ckpt", map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise ArtifactError(f"{directory}: the best epoch cannot be read ({error}); remove it to train again") from None
    state: dict[str, Tensor] = best["state_dict"]
    return state


class _Batches(Dataset[dict[str, NDArray[Any]]]):
    """Batches of rows, each read when it is asked for; with a first step they are flipped and turned at random."""

    def __init__(self, data: "_Cutouts", batches: Sequence[NDArray[np.integer]], first_step: int | None) -> None:
        self.data = data
        self.batches = batches
        self.first_step = first_step

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:  # pyrefly: ignore[missing-override-decorator]
        rows = self.batches[index]
        images = np.asarray(self.data.images[rows])
        if self.first_step is not None:
            images = random_dihedral(images, generator(self.data.course.seed, AUGMENTATION, self.first_step + index))
        return {"image": images, "label": self.data.labels[rows]}


class _Cutouts(LightningDataModule):
    """The survey's store as Lightning wants it: whole batches, in an order that depends on seed and epoch alone."""

    def __init__(
        self,
        encoder: ImageEncoder,
        images: NDArray[np.uint8],
        labels: NDArray[np.float32],
        train_rows: NDArray[np.integer],
        valid_rows: NDArray[np.integer],
        course: Course,
        *,
        augment: bool,
    ) -> None:
        super().__init__()
        self.encoder, self.images, self.labels = encoder, images, labels
        self.train_rows, self.valid_rows = train_rows, valid_rows
        self.course, self.augment = course, augment

    def train_dataloader(self) -> DataLoader[Any]:  # pyrefly: ignore[missing-override-decorator]
        assert self.trainer is not None
        epoch = self.trainer.current_epoch
        batches = [self.train_rows[chosen] for chosen in self.course.batches(epoch)]
        first_step = epoch * self.course.batches_per_epoch if self.augment else None
        return DataLoader(_Batches(self, batches, first_step), batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:  # pyrefly: ignore[missing-override-decorator]
        n_batches = -(-len(self.valid_rows) // VALID_BATCH)
        return DataLoader(_Batches(self, np.array_split(self.valid_rows, n_batches), None), batch_size=None)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:  # pyrefly: ignore[missing-override-decorator]
        self.encoder.to(batch["image"].device)
        return batch | {"image": self.encoder.standardised(batch["image"])}


class _Watch(Callback):
    """Keeps the history, stops at losses that are not finite, and makes dropout a function of seed and step."""

    def __init__(self, course: Course, target_std: NDArray[np.floating], report: Report) -> None:
        self.course = course
        self.epoch_log = EpochLog(course)
        self.target_std = target_std
        self.report = report
        self.history: list[Record] = []

    def state_dict(self) -> dict[str, Any]:  # pyrefly: ignore[missing-override-decorator]
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # pyrefly: ignore[missing-override-decorator]
        self.history = list(state_dict["history"])
        self.report(self.history)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # pyrefly: ignore[missing-override-decorator]
        self.losses: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.n_valid = 0
        self.started = time.perf_counter()
        hidden = None if log.isEnabledFor(logging.INFO) else True
        self.bar = tqdm(total=self.course.batches_per_epoch, desc=self.course.label, disable=hidden, leave=False)

    def on_train_batch_start(  # pyrefly: ignore[missing-override-decorator]
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(int(generator(self.course.seed, START, trainer.global_step).integers(2**63)))

    def on_train_batch_end(  # pyrefly: ignore[missing-override-decorator]
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        self.losses.append(outputs["loss"].detach() * len(batch["label"]))
        self.bar.update()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # pyrefly: ignore[missing-override-decorator]
        self.training_s = time.perf_counter() - self.started
        self.bar.close()

    def on_validation_batch_end(  # pyrefly: ignore[missing-override-decorator]
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.squares.append((outputs["predictions"] - outputs["labels"]).double().square().sum(dim=0))
        self.n_valid += len(outputs["labels"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # pyrefly: ignore[missing-override-decorator]
        course, epoch = self.course, trainer.current_epoch + 1
        train_loss = float(torch.stack(self.losses).sum()) / course.n_rows
        valid_loss = float(trainer.callback_metrics["finetuning/val_loss"])
        columns = self.target_std * torch.stack(self.squares).sum(dim=0).div(self.n_valid).sqrt().cpu().numpy()
        if not np.isfinite([train_loss, *columns]).all():  # Zoobot's own mean leaves out what is not a number
            raise TrainingError(
                f"{course.label}: the loss of epoch {epoch} of {course.epochs} is not finite; lower the learning rate"
            )
        self.history.append(
            {
                "epoch": epoch,
                "step": trainer.global_step,
                "learning_rate": max(group["lr"] for group in trainer.optimizers[0].param_groups),
                "train_loss": train_loss,
                "valid_loss": valid_loss,
                "valid_rmse": float(np.sqrt(np.mean(columns**2))),
                "valid_rmse_columns": columns.tolist(),
                "images_per_s": course.n_rows / self.training_s,
                "seconds": self.training_s,
            }
        )
        self.epoch_log.tell(epoch, f"valid_loss={valid_loss:.4g}")
        self.report(self.history)
