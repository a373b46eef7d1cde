"""What a method is to the rest of the lab: its settings, what its kind is, the tables that it plans, and its reader.

A method is one file: a frozen dataclass of settings with these members, registered in `sfnetlab.methods`. It never sees
the experiment, only a `Planner`; and nothing else in the lab tells kinds apart, but asks `Traits`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from sfnetlab.errors import ConfigError
from sfnetlab.jobs import Job, Metrics, Table, TableSpec, Task
from sfnetlab.settings import Target, Training, View, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from sfnetlab.artifacts import SurveyTable

BLACK, GREY, SILVER = "#000000", "#666666", "#9A9A9A"
ORANGE, SKY, GREEN = "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
"""Colours of Okabe and Ito (2008), which colour-blind readers tell apart, and greys."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How methods of one kind are drawn: the first one by the first entries, the second by the second, and so on."""

    colors: tuple[str, ...]
    markers: tuple[str, ...]
    linestyles: tuple[str, ...]


Role = Literal["network", "embedding", "decomposition", "null", "control"]
"""What a kind of features is there for.

- "network": features that a network of ours learns from cutouts.
- "embedding": dense output of an encoder, there to be decomposed and compared with.
- "decomposition": features made of an embedding.
- "null": a decomposition of which a part stays random.
- "control": what is known without a network: nothing, numbers of the catalogue or of the pixels, true factors.
"""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """The only place that says what a kind of features is."""

    label: str
    """What legends call features whose name is the kind's."""
    noun: str
    """What one of its features is called, in the plural."""
    role: Role
    supervised: bool
    """Whether its features themselves are learnt with a label."""
    can_be_decomposed: bool
    """Whether PCA, SAEs and the like may stand on it."""
    is_ordered: bool
    """Whether the first n features are a choice of their own, as of components."""
    is_sparse: bool
    """Whether its settings name k, the number of features that are active for a galaxy."""
    needs_images: bool = False
    """Whether it is made of the cutouts of the survey."""
    rank: int
    """Place in tables, from the controls to what the lab is about; tens, so that another kind fits between."""
    look: Look


@dataclass(frozen=True)
class Given:
    """What an experiment has that its [[features]] refer to by name."""

    targets: Mapping[str, Target]
    views: tuple[str, ...]
    """Names of views, "full" first."""
    embeddings: tuple[str, ...]
    """Names of the [[features]] that can be decomposed."""
    is_real: bool
    """Whether the galaxies are real ones, of which nobody knows the true factors."""


class Planner(Protocol):
    """All that a method sees of an experiment."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of everything that is trained."""
        ...

    @property
    def survey(self) -> Job:
        """The job that prepares the survey."""
        ...

    @property
    def training(self) -> Training:
        """How networks are trained."""
        ...

    @property
    def targets(self) -> Mapping[str, Target]:
        """All of [targets], by name."""
        ...

    def target(self, name: str) -> Target:
        """Return one of [targets]."""
        ...

    def view(self, name: str) -> View | None:
        """Return one of [views]; None for cutouts as they are."""
        ...

    def embedding(self, on: str) -> list[Table]:
        """Return the tables of the [[features]] `on` that others stand on: one a seed where it has seeds."""
        ...

    def job(self, stage: str, name: str, spec: object, inputs: Mapping[str, Job]) -> Job:
        """Return the job of a stage, with the stage's version."""
        ...


class Method(Protocol):
    """The settings of one [[features]]: a frozen dataclass."""

    traits: ClassVar[Traits]

    @property
    def name(self) -> str:
        """Names its results, and its rows in every table."""
        ...

    @property
    def kind(self) -> str:
        """Which method this is."""
        ...

    def check(self, given: Given) -> None:
        """Raise ValueError unless the experiment has what the settings refer to."""
        ...

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield the feature tables to have, with the jobs that make them."""
        ...

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> "Reader":
        """Return what reads the table's features in what they are made of.

        Parameters
        ----------
        table
            Which of the method's tables it is.
        inputs
            Directories by role: `features` of the table, and `embedding` and `saes` where there are any.
        """
        ...


MOST_RUNS = 1000
"""Trainings on one encoder."""

WidthOf = Callable[[str], int | None]


@runtime_checkable
class Demanding(Protocol):
    """Settings of features that want something of a survey which it may lack."""

    def lacking(self, survey: "SurveyTable", width_of: WidthOf) -> Iterator[str]:
        """Yield a sentence for each thing that a prepared survey lacks: it is told before anything is trained.

        Parameters
        ----------
        width_of
            From the name of an embedding to its number of columns; None where that is not known beforehand.
        """
        ...


@runtime_checkable
class Wide(Protocol):
    """Settings of embeddings whose number of columns may be known before they are made."""

    def width(self) -> int | None:
        """Return the number of columns; None where it is not known."""
        ...


@runtime_checkable
class ReadsCatalogue(Protocol):
    """Settings of features made of columns of the catalogue, which is refused at once if it lacks one."""

    @property
    def catalogue_columns(self) -> tuple[str, ...]:
        """Return the names of the columns, which must be numbers."""
        ...


class Baseline(Method, Protocol):
    """A method whose features stage fit-baselines makes."""

    def build(self, target: Target | None, task: Task) -> Metrics:
        """Write the feature table; return numbers about it."""
        ...


class Reader(Protocol):
    """What reads an embedding of d_in dimensions: an affine map with a rule that selects features.

    Attributes
    ----------
    prefixes
        Numbers of first features that are a dictionary of their own, rising; the last one is all.
    directions : (n_features, d_in) or None
        What each feature stands for in the embedding: atoms of a dictionary, components, axes; None where it is not
        known.
    reading : (n_features, d_in) and (n_features,)
        Directions and offsets by which features are read, before any of them is set to zero.
    writing : (n_features, d_in) and (d_in,), or None
        What features add up to: `decode` is features @ first + second. None where they do not make the embedding.
    """

    @property
    def prefixes(self) -> tuple[int, ...]: ...
    @property
    def directions(self) -> "NDArray[np.floating] | None": ...
    @property
    def reading(self) -> "tuple[NDArray[np.floating], NDArray[np.floating]]": ...
    @property
    def writing(self) -> "tuple[NDArray[np.floating], NDArray[np.floating]] | None": ...

    def encode(self, x: "NDArray[np.floating]") -> "NDArray[np.floating] | csr_array":
        """Return the features (n, n_features) of embeddings (n, d_in)."""
        ...

    def decode(self, features: "NDArray[np.floating] | csr_array") -> "NDArray[np.floating] | None":
        """Return the embeddings (n, d_in) that features stand for; None where they do not make the embedding."""
        ...


def require_target(name: str, target: str, given: Given) -> None:
    """Raise ValueError unless the experiment has the target that the features `name` refer to."""
    require(
        target in given.targets,
        f"features {name!r}: target must be one of {sorted(given.targets)}, got {target!r}",
    )


def require_embedding(name: str, on: str, given: Given) -> None:
    """Raise ValueError unless the experiment has the embedding that the features `name` stand on."""
    require(
        on in given.embeddings,
        f"features {name!r}: on must name an encoder, one of {list(given.embeddings)}, got {on!r}",
    )


def require_runs(runs: int) -> None:
    """Raise ValueError unless a number of trainings on each encoder is one."""
    require(1 <= runs <= MOST_RUNS, f"runs must lie in [1, {MOST_RUNS}], got {runs}")


def runs_on(embedding: Table, name: str, runs: int) -> int:
    """Return how many trainings of the features `name` stand on an embedding: as the settings say.

    Raises
    ------
    ConfigError
        If there are to be several on an embedding that has no seed.
    """
    if runs > 1 and embedding.spec.seed is None:
        raise ConfigError(
            f"features {name!r}: runs = {runs} are trainings on the encoder of each seed, but "
            f"{embedding.spec.features!r} has no seeds; leave runs out and name as many seeds as trainings are wanted"
        )
    return runs


def require_known_views(name: str, views: tuple[str, ...], given: Given) -> None:
    """Raise ValueError unless the experiment has the views that the features `name` refer to."""
    unknown = sorted({*views} - {*given.views})
    require(not unknown, f"features {name!r}: views must be among {list(given.views)}, got {unknown}")
