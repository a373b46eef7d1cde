"""Pretrained encoders that Zoobot trains on for a target."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from sfnetlab.jobs import Table, TableSpec
from sfnetlab.methods.contract import (
    BLACK,
    GREEN,
    PURPLE,
    Given,
    Look,
    Planner,
    Reader,
    Traits,
    require_target,
)
from sfnetlab.methods.networks import TrainedEmbeddingSpec, Weights, weights_of
from sfnetlab.methods.readers import identity_of
from sfnetlab.settings import Target, require, require_convention, require_weights


@dataclass(frozen=True, kw_only=True)
class Zoobot:
    """Pretrained encoder fine-tuned on a target by Zoobot: the strong baseline. Supervised; needs the extra zoobot.

    Defaults of the training are those of Zoobot 2.9, but for the epochs.
    """

    traits: ClassVar[Traits] = Traits(
        label="Zoobot",
        noun="dimensions",
        role="embedding",
        supervised=True,
        can_be_decomposed=True,
        is_ordered=False,
        is_sparse=False,
        needs_images=True,
        rank=40,
        look=Look(colors=(GREEN, BLACK, PURPLE), markers=("8", "D", "*", "d"), linestyles=("-", "-.")),
    )

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["zoobot"] = "zoobot"
    target: str
    """Which of [targets] it learns to predict."""
    backbone: str = "hf_hub:mwalmsley/zoobot-encoder-convnext_nano"
    """What to start from, named as for kind = "encoder"."""
    weights: str = "hub"
    """Its weights: "hub", "imagenet", "random" or a file, as for kind = "encoder"."""
    image_size: int | None = None
    """Resample cutouts to this side before the network; None: as for kind = "encoder"."""
    training_mode: Literal["full", "head_only"] = "full"
    """Train all weights, or the linear head alone."""
    layer_decay: float = 0.75
    """From each of timm's groups of layers to the one below, learning rates shrink by this factor."""
    epochs: int = 20
    """Passes over the training rows; the epoch with the least loss on valid rows is kept."""
    batch_size: int = 64
    """Galaxies a step."""
    learning_rate: float = 1e-4
    """Constant rate of AdamW for the head."""
    weight_decay: float = 0.05
    """Decoupled weight decay."""
    head_dropout: float = 0.5
    """Share of the pooled features that are hidden from the head in a training step."""
    augment: bool = True
    """A random flip and 90-degree rotation for each galaxy and epoch."""

    def __post_init__(self) -> None:
        require_weights(self.weights, ("imagenet", "hub", "random"))
        require_convention(self.backbone, self.weights)
        require(0 < self.layer_decay <= 1, f"layer_decay must lie in (0, 1], got {self.layer_decay}")
        require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        require(self.batch_size >= 2, f"batch_size must be at least 2, got {self.batch_size}")
        require(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")
        require(0 <= self.head_dropout < 1, f"head_dropout must lie in [0, 1), got {self.head_dropout}")

    def check(self, given: Given) -> None:
        """Raise ValueError unless the experiment has the target, and it is one of values."""
        require_target(self.name, self.target, given)
        require(
            not given.targets[self.target].quantiles,
            f"features {self.name!r}: Zoobot predicts values, so its target must be one without quantiles",
        )

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield a table for each seed."""
        for seed in planner.seeds:
            spec = TableSpec(features=self.name, kind=self.kind, k=None, seed=seed)
            finetune = FinetuneSpec(
                zoobot=self, weights=weights_of(self.weights), target=planner.target(self.target), seed=seed
            )
            survey = {"survey": planner.survey}
            network = planner.job("finetune-zoobot", spec.name, finetune, survey)
            job = planner.job("embed-images", spec.name, TrainedEmbeddingSpec(), survey | {"network": network})
            yield Table(spec=spec, job=job, network=network, head_target=self.target)

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return the identity: features are the embedding itself."""
        return identity_of(inputs)


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec:
    """Fine-tune one encoder on a target, with one seed."""

    zoobot: Zoobot
    weights: Weights
    """What `zoobot.weights` stands for."""
    target: Target
    seed: int
