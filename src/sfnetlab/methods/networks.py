"""What methods share that run a network over cutouts: where its weights come from, the jobs that train and run it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sfnetlab.errors import DataError
from sfnetlab.files import file_problem
from sfnetlab.jobs import Table, TableSpec, Viewed
from sfnetlab.methods.contract import Planner
from sfnetlab.settings import FULL_VIEW, WEIGHT_FILES, Target, Training, View

if TYPE_CHECKING:
    from sfnetlab.training.penalties import Penalty


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a backbone's weights come from: "random", "imagenet", "hub", or the hash of the file at `path`."""

    source: str
    path: Path | None


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Train one network on a target, with one seed."""

    backbone: str
    k: int | None
    """Active features a galaxy; None trains the dense network."""
    target: Target
    training: Training
    weights: Weights
    """What `training.weights` stands for."""
    seed: int
    view: View | None
    """What it is shown of cutouts; None: all of it."""
    penalties: Mapping["Penalty", float] = field(default_factory=dict)
    """Weights, none of them 0, of the terms of training/penalties.py that are added to its loss."""


@dataclass(frozen=True, kw_only=True)
class TrainedEmbeddingSpec:
    """Run the network of the input `network`; nothing else to choose."""


@dataclass(frozen=True, kw_only=True)
class FrozenEmbeddingSpec:
    """Run a backbone that is not trained here."""

    backbone: str
    weights: Weights
    image_size: int | None
    seed: int | None
    """Seed of random weights, else None."""


class _Viewer(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def views(self) -> Sequence[str]: ...


def trained_table(
    planner: Planner,
    settings: _Viewer,
    view: str,
    *,
    backbone: str,
    k: int | None,
    target: str,
    seed: int,
    penalties: "Mapping[Penalty, float] | None" = None,
) -> Table:
    """Return the table of a network that is trained here and sees cutouts through a view."""
    features = settings.name if view == FULL_VIEW else f"{settings.name}-{view}"
    spec = TableSpec(features=features, kind=settings.kind, k=k, seed=seed)
    seen = planner.view(view)
    training = NetworkSpec(
        backbone=backbone,
        k=k,
        target=planner.target(target),
        training=planner.training,
        weights=weights_of(planner.training.weights),
        seed=seed,
        view=seen,
        penalties=penalties or {},
    )
    survey = {"survey": planner.survey}
    network = planner.job("train-sfnet", spec.name, training, survey)
    return Table(
        spec=spec,
        job=planner.job("embed-images", spec.name, TrainedEmbeddingSpec(), survey | {"network": network}),
        network=network,
        head_target=target,
        viewed=Viewed(method=settings.name, view=view, settings=seen or View(), is_first=view == settings.views[0]),
    )


def weights_of(weights: str) -> Weights:
    """Return what a setting of weights stands for: a name, or a file with its hash.

    Raises
    ------
    DataError
        If there is no such file.
    """
    if not weights.endswith(WEIGHT_FILES):
        return Weights(source=weights, path=None)
    path = Path(weights)
    if problem := file_problem(path):
        raise DataError(f"{path}: weights file not found: {problem}; give the path of a file of the backbone's weights")
    from sfnetlab.surveys.fingerprints import contents_of

    return Weights(source=f"sha256:{contents_of([str(path)], path)[0]}", path=path)
