"""Time to accuracy: seconds in which the lab's recipe gets a network as far as the SFNet paper's recipe does.

The paper's (Wu 2024): RAdam + Lookahead, one cycle up to a rate of 0.1, 20 epochs in batches of 64, float32, channels
first, JPEGs that a DataLoader decodes. Ours is what [training] says by default, on the store of the same pixels.
"""

import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sfnetlab import runtime
from sfnetlab.bench.compare import Row
from sfnetlab.settings import Target, Training

if TYPE_CHECKING:
    from sfnetlab.models.sfnet import SparseFeatureNetwork

LARGE, SMALL = 12_000, 3_000
"""Galaxies of `speedrun` and `speedrun-small`."""
SEEDS = (0, 1, 2)
PAPERS = Training(optimizer="ranger", learning_rate=0.1, batch_size=64, epochs=20, precision="float32")
"""The settings of the paper's recipe."""
SIDE, FIELD_ARCSEC, K = 64, 38.0, 4
_TRAIN_SHARE = 0.7
_TARGET = Target(columns=("oh_p50",), cut="metallicity")


class Outcome(NamedTuple):
    """What one training came to. Lists have a number for each epoch."""

    rmses: list[float]
    """On valid rows, dex."""
    seconds: list[float]
    """Since the start, without validation."""
    n_alive: int
    """Features that are active on a valid row."""
    n_effective: float
    """exp of the entropy of their activations: features in use."""

    def seconds_until(self, rmse: float) -> float:
        """Return the seconds to the first epoch that is as good, infinity where none is."""
        return next((s for s, found in zip(self.seconds, self.rmses, strict=True) if found <= rmse), np.inf)


def speedrun(device: str) -> Iterator[Row]:
    """Yield the race on 12,000 galaxies: half an hour for each seed on two quiet cores."""
    yield from rows_of(LARGE, SEEDS, device)


def speedrun_small(device: str) -> Iterator[Row]:
    """Yield the race on 3,000 galaxies."""
    yield from rows_of(SMALL, SEEDS, device)


def rows_of(n_galaxies: int, seeds: Sequence[int], device: str, ours: Training = Training()) -> Iterator[Row]:
    """Yield rows for SFNets (k = 4) of both recipes: seconds, final RMSE, and features alive and in use.

    Each seed trains a network by either recipe, in turn. The seconds of a seed are those in which ours reaches the
    final valid RMSE of the other, which are held against all that the other took.
    """
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="sfnetlab-speedrun-") as place:
        folder = Path(place)
        make_survey(folder, n_galaxies)
        pairs = []
        for seed in seeds:
            with ProcessPoolExecutor(1, mp_context=spawn) as notebook:  # as those who use the paper's code run it
                papers = notebook.submit(train_as_the_paper, folder, PAPERS, seed, device).result()
            pairs.append((train_as_the_lab(folder, ours, seed, device), papers))

    def row(case: str, unit: str, values: list[tuple[float, float]]) -> Row:
        our, their = (fmean(column) for column in zip(*values, strict=True))
        case = f"SFNet k={K}, {n_galaxies:,} galaxies, mean of {len(seeds)} seeds: {case}"
        ratio = our / their if their else None
        return Row(
            name="speedrun", case=case, ours=our, reference=their, unit=unit, ratio=ratio,
            threads=runtime.n_threads(), device=device,
        )  # fmt: skip

    yield row("to the paper's RMSE", "s", [(o.seconds_until(p.rmses[-1]), p.seconds[-1]) for o, p in pairs])
    yield row("final valid RMSE", "dex", [(o.rmses[-1], p.rmses[-1]) for o, p in pairs])
    yield row("alive features", "features", [(o.n_alive, p.n_alive) for o, p in pairs])
    yield row("effective features", "features", [(o.n_effective, p.n_effective) for o, p in pairs])


def make_survey(folder: Path, n_galaxies: int) -> None:
    """Write mock galaxies as JPEG files and as a store of the same pixels, and their labels."""
    from PIL import Image

    from sfnetlab.surveys.catalog import target_rows
    from sfnetlab.surveys.mock_population import make_population
    from sfnetlab.surveys.mock_render import render_images

    catalog = make_population(n_galaxies, 0, FIELD_ARCSEC)
    images = np.empty((n_galaxies, SIDE, SIDE, 3), dtype=np.uint8)
    render_images(catalog, SIDE, FIELD_ARCSEC, 0, images)
    rows = np.flatnonzero(target_rows(catalog, _TARGET, "speedrun"))
    store = np.empty((len(rows), SIDE, SIDE, 3), dtype=np.uint8)
    for place, row in enumerate(rows):
        path = folder / f"{place}.jpg"
        Image.fromarray(images[row]).save(path, quality=90)
        store[place] = np.asarray(Image.open(path))
    np.save(folder / "images.npy", store)
    np.save(folder / "labels.npy", catalog[list(_TARGET.columns)].to_numpy(dtype=np.float64)[rows])


def train_as_the_lab(folder: Path, training: Training, seed: int, device: str) -> Outcome:
    """Return what a training by these settings comes to."""
    from sfnetlab.models.backbones import make_backbone
    from sfnetlab.models.sfnet import SparseFeatureNetwork
    from sfnetlab.training.network import train_network
    from sfnetlab.training.optimizers import Optimization

    images, labels = np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "labels.npy")
    train, valid = _parts(len(labels))
    network = SparseFeatureNetwork(make_backbone("resnet18", "random", seed), "resnet18", 1, K, seed)
    history = train_network(
        network,
        images,
        labels,
        train,
        valid,
        epochs=training.epochs,
        batch_size=training.batch_size,
        optimization=Optimization(
            optimizer=training.optimizer,
            schedule=training.schedule,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
        ),
        loss=training.loss,
        augment=training.augment,
        precision=runtime.resolve_precision(training.precision, device),
        seed=seed,
        device=device,
        checkpoint=folder / f"checkpoint-{seed}",
        report=lambda _: None,
    )
    (folder / f"checkpoint-{seed}").unlink()
    seconds = np.cumsum([record["seconds"] for record in history]).tolist()
    return _outcome(network, images, valid, [record["valid_rmse"] for record in history], seconds, device)


def train_as_the_paper(folder: Path, training: Training, seed: int, device: str) -> Outcome:
    """Return what these settings come to in a plain loop over a DataLoader of JPEG files, channels first."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset, Subset
    from torchvision import transforms

    from sfnetlab.models.backbones import make_backbone
    from sfnetlab.models.sfnet import SparseFeatureNetwork
    from sfnetlab.models.topk import keep_top_k
    from sfnetlab.surveys.images import channel_statistics
    from sfnetlab.training.network import embed_batches, root
    from sfnetlab.training.optimizers import Optimization, learning_rate_at, make_optimizer

    images, labels = np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "labels.npy")
    train, valid = _parts(len(labels))
    pixel_mean, pixel_std = channel_statistics(images, train)
    target_mean, target_std = labels[train].mean(axis=0), labels[train].std(axis=0)
    prepare = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(pixel_mean, pixel_std),
        ]
    )

    class Files(Dataset["tuple[torch.Tensor, torch.Tensor]"]):
        def __getitem__(self, index: int) -> "tuple[torch.Tensor, torch.Tensor]":  # pyrefly: ignore[missing-override-decorator]
            label = torch.tensor((labels[index] - target_mean) / target_std, dtype=torch.float32)
            return prepare(Image.open(folder / f"{index}.jpg").convert("RGB")), label

    torch.manual_seed(seed)
    network = SparseFeatureNetwork(make_backbone("resnet18", "random", seed), "resnet18", 1, K, seed).to(device)
    network.set_statistics(pixel_mean=pixel_mean, pixel_std=pixel_std, target_mean=target_mean, target_std=target_std)
    optimization = Optimization(
        optimizer=training.optimizer,
        schedule=training.schedule,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
    )
    optimizer = make_optimizer(network, optimization)
    loader = DataLoader(
        Subset(Files(), train.tolist()), training.batch_size, shuffle=True, drop_last=True,
        num_workers=runtime.n_threads(), multiprocessing_context="fork",
    )  # fmt: skip
    rmses: list[float] = []
    seconds: list[float] = []
    step, spent = 0, 0.0
    for _ in range(training.epochs):
        started = perf_counter()
        network.train()
        for batch, truth in loader:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, training.epochs * len(loader), optimization)
            outputs = network.head(keep_top_k(network.encoder.backbone(batch.to(device)), K))
            loss = root((outputs - truth.to(device)).square().mean())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        spent += perf_counter() - started
        seconds.append(spent)
        predicted = np.concatenate(list(embed_batches(network.eval().predict, images, valid, device=device)))
        rmses.append(float(np.sqrt(np.mean((predicted - labels[valid]) ** 2))))
    return _outcome(network, images, valid, rmses, seconds, device)


def _parts(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return train and valid rows."""
    return np.arange(round(_TRAIN_SHARE * n)), np.arange(round(_TRAIN_SHARE * n), n)


def _outcome(
    network: "SparseFeatureNetwork",
    images: np.ndarray,
    valid: np.ndarray,
    rmses: list[float],
    seconds: list[float],
    device: str,
) -> Outcome:
    from sfnetlab.interpret.catalog import summarise_usage
    from sfnetlab.training.network import embed_batches

    usage = summarise_usage(np.concatenate(list(embed_batches(network.features, images, valid, device=device))))
    return Outcome(rmses, seconds, int(usage["n_alive"]), usage["effective_number"])
