"""Sparse Feature Networks: features that a network learns to choose from, few for each galaxy."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.jobs import Table, TableSpec
from sfnetlab.methods.contract import (
    BLACK,
    BLUE,
    SKY,
    Given,
    Look,
    Planner,
    Reader,
    Traits,
    require_known_views,
    require_target,
)
from sfnetlab.methods.networks import trained_table
from sfnetlab.methods.readers import identity_of
from sfnetlab.settings import FULL_VIEW, require, require_sweep, require_views

if TYPE_CHECKING:
    from sfnetlab.training.penalties import Penalty

N_SFNET_FEATURES = 512
"""Pooled features of a ResNet18, the dictionary from which an SFNet picks k for each galaxy."""


@dataclass(frozen=True, kw_only=True)
class SFNet:
    """Sparse Feature Network: ResNet18, the k largest of 512 pooled features, a linear head. Supervised."""

    traits: ClassVar[Traits] = Traits(
        label="SFNet",
        noun="features",
        role="network",
        supervised=True,
        can_be_decomposed=False,
        is_ordered=False,
        is_sparse=True,
        needs_images=True,
        rank=110,
        look=Look(colors=(BLUE, SKY, BLACK), markers=("o", "D", "h", "8"), linestyles=("-", "--")),
    )

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["sfnet"] = "sfnet"
    target: str
    """Which of [targets] it learns to predict."""
    k: tuple[int, ...] = (4,)
    """Features active for each galaxy; one network a value and seed."""
    views: tuple[str, ...] = (FULL_VIEW,)
    """Through which of [views] it sees cutouts, "full" being as they are; one network each, called <name>-<view>. The
    first is interpreted and compared like any other, the others are held against it."""
    decorrelation: float = 0.0
    """Weight of a penalty on correlated features (VICReg's covariance term, eq. 3-4, of the correlations of all pooled
    features in a batch, beside a loss of about 1): such as 0.003."""
    load_balance: float = 0.0
    """Weight of a penalty on features that are active in many galaxies while others are in few (the auxiliary loss of
    the Switch Transformer, eq. 4-6, over the k active ones; 1 where all are active alike): such as 0.1."""

    def __post_init__(self) -> None:
        require_sweep(self.k, N_SFNET_FEATURES, "the number of pooled features")
        require_views(self.views)
        for penalty in ("decorrelation", "load_balance"):
            weight = getattr(self, penalty)
            require(0 <= weight < inf, f"{penalty} must be a weight of 0 or more, got {weight}")

    def check(self, given: Given) -> None:
        """Raise ValueError unless the experiment has the target and the views."""
        require_known_views(self.name, self.views, given)
        require_target(self.name, self.target, given)

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield a table for each view, k and seed, each of a network of its own."""
        weights: dict[Penalty, float] = {"decorrelation": self.decorrelation, "load_balance": self.load_balance}
        penalties = {name: weight for name, weight in weights.items() if weight}
        for view, k, seed in product(self.views, self.k, planner.seeds):
            yield trained_table(
                planner, self, view, backbone="resnet18", k=k, target=self.target, seed=seed, penalties=penalties
            )

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return the identity: features are what the network gives."""
        return identity_of(inputs)
