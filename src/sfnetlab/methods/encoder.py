"""Encoders: dense embeddings of networks that are trained here or elsewhere."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar, Literal

from sfnetlab.jobs import Table, TableSpec
from sfnetlab.methods.contract import (
    BLACK,
    GREEN,
    GREY,
    Given,
    Look,
    Planner,
    Reader,
    Traits,
    require_known_views,
    require_target,
)
from sfnetlab.methods.networks import FrozenEmbeddingSpec, trained_table, weights_of
from sfnetlab.methods.readers import identity_of
from sfnetlab.settings import FULL_VIEW, require, require_convention, require_views, require_weights


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Dense embeddings of a backbone: the pooled output before its head."""

    traits: ClassVar[Traits] = Traits(
        label="encoder",
        noun="dimensions",
        role="embedding",
        supervised=False,
        can_be_decomposed=True,
        is_ordered=False,
        is_sparse=False,
        needs_images=True,
        rank=30,
        look=Look(colors=(GREY, BLACK, GREEN), markers=("d", "*", "D", "8"), linestyles=("-.", ":")),
    )

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["encoder"] = "encoder"
    backbone: str = "resnet18"
    """A timm model name; a timm model of the Hugging Face hub, "hf_hub:owner/name" (with "@revision" to hold it
    fast), as "hf_hub:mwalmsley/zoobot-encoder-resnet18"; or for weights in a file "zoobot:" or "timm:" and a timm
    name, which says what images they expect."""
    weights: str = "target"
    """"target" (trained here on `target`, without top-k), "imagenet" (timm's), "hub" (of a backbone "hf_hub:..."),
    "random", or a file: .safetensors, .ckpt, .pt, .pth."""
    target: str | None = None
    """Which of [targets] to train on, with weights = "target"."""
    image_size: int | None = None
    """Resample cutouts to this side before the network; None keeps the survey's, but gives models of the hub and of
    Zoobot the size that they were trained at."""
    views: tuple[str, ...] = (FULL_VIEW,)
    """Through which of [views] it sees cutouts, with weights = "target"; one network each, called <name>-<view>. What
    stands on this encoder stands on the first."""

    def __post_init__(self) -> None:
        require_views(self.views)
        require(
            self.weights == "target" or self.views == (FULL_VIEW,),
            f'views are for weights = "target", got weights = {self.weights!r}',
        )
        if self.weights == "target":
            require(self.target is not None, 'target is missing: weights = "target" needs one of [targets]')
            require(self.image_size is None, 'image_size is for pretrained networks, not for weights = "target"')
        else:
            require(self.target is None, f'target is only for weights = "target", got weights = {self.weights!r}')
        require_weights(self.weights, ("target", "imagenet", "hub", "random"))
        require_convention(self.backbone, self.weights)

    def check(self, given: Given) -> None:
        """Raise ValueError unless the experiment has the target and the views."""
        require_known_views(self.name, self.views, given)
        if self.target is not None:
            require_target(self.name, self.target, given)

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield a table for each view and seed; pretrained weights have no seed."""
        is_random = self.weights in ("target", "random")
        for view, seed in product(self.views, planner.seeds if is_random else (None,)):
            if self.target is not None and seed is not None:
                yield trained_table(planner, self, view, backbone=self.backbone, k=None, target=self.target, seed=seed)
            else:
                yield self._frozen(planner, seed)

    def _frozen(self, planner: Planner, seed: int | None) -> Table:
        spec = TableSpec(features=self.name, kind=self.kind, k=None, seed=seed)
        embedding = FrozenEmbeddingSpec(
            backbone=self.backbone, weights=weights_of(self.weights), image_size=self.image_size, seed=seed
        )
        job = planner.job("embed-images", spec.name, embedding, {"survey": planner.survey})
        return Table(spec=spec, job=job, is_untrained=self.weights == "random")

    def width(self) -> int | None:
        """Return the number of pooled features; None where the architecture is not known without a download."""
        if self.weights not in ("target", "random"):
            return None
        from sfnetlab.models.backbones import ImageEncoder, make_backbone

        backbone = make_backbone(self.backbone, "random", seed=0)
        return ImageEncoder(backbone, (0, 0, 0), (1, 1, 1)).n_features

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return the identity: features are the embedding itself."""
        return identity_of(inputs)
