"""What questions are asked of: a feature table with all that is known of it; and what an answer is made of.

A question is a file with its computation on arrays and `ask(table)`, which picks from the table what the computation
wants; `sfnetlab.interpret.QUESTIONS` lists them. Nothing here knows where results lie: stage interpret-features fills
the table in.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.jobs import TableSpec
from sfnetlab.methods import TRAITS, Reader, Traits
from sfnetlab.metrics.association import MIN_ROWS
from sfnetlab.metrics.tables import FeatureMatrix, evenly
from sfnetlab.settings import Target
from sfnetlab.surveys.catalog import labels_and_targets

log = logging.getLogger(__name__)

SEED = 0
"""Seed of the resamples and permutations of every question."""
N_BOOTSTRAP = 1000
"""Resamples of the galaxies for the intervals of most questions."""
MAX_ROWS = 2**17
"""Galaxies of each part of the split that features are described and compared on, at most: intervals are narrow then,
and neither memory nor time grows further with the survey."""
POSITION = ("ra", "dec")
"""Columns that are no label of a galaxy, but a nuisance."""

GalaxyIds: TypeAlias = "pd.Series[str]"
"""Ids of galaxies, in any order."""


@dataclass(frozen=True)
class Part:
    """The galaxies of one part of the split that the features are described on.

    Attributes
    ----------
    rows : DataFrame of n rows
        Their catalogue.
    labels : DataFrame of n rows
        What is measured of them, and their positions, float64, numbered from 0. NaN: not measured, or a column of
        targets for a galaxy outside the cuts of them all.
    values : ndarray or CSR of shape (n, d)
        Their features.
    """

    rows: pd.DataFrame
    labels: pd.DataFrame
    values: FeatureMatrix


class Perturbed(NamedTuple):
    """What a network makes of the same galaxies under every transform."""

    embeddings: NDArray[np.float32]
    """(n_transforms, n, d_in), galaxies as they are first; memory-mapped."""
    transforms: pd.DataFrame
    """A row a transform: `name, level, label, is_symmetry`."""


@dataclass(frozen=True)
class Sight:
    """Where a network looks in cutouts, and where the components of mock galaxies show in them.

    Attributes
    ----------
    activation_maps
        From ids (n,) and a feature to its maps (n, h, w), float32, 0 or more.
    component_masks
        From rows of the catalogue (n) and the name of a component to where it shows, bool (n, side, side).
    """

    activation_maps: Callable[[GalaxyIds, int], NDArray[np.float32]]
    component_masks: Callable[[pd.DataFrame, str], NDArray[np.bool_]]


@dataclass(frozen=True)
class Autoencoder:
    """The way back from features to cutouts, uint8 (n, side, side, 3).

    Attributes
    ----------
    latents : DataFrame
        A row a latent, in order: `latent`, `mean` and `variance` over train galaxies, and what else is known of it.
    has_prior
        Whether latents were held to a standard normal, so that there is something to draw from.
    decode
        From codes (n, n_latents) to cutouts.
    reconstruct_by_pca
        From cutouts to what as many principal components of the pixels make of them.
    """

    latents: pd.DataFrame
    has_prior: bool
    decode: Callable[[NDArray[np.floating]], NDArray[np.uint8]]
    reconstruct_by_pca: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class DescribedTable:
    """A feature table with all that questions may use. What is expensive to load is a function, called when asked for.

    Attributes
    ----------
    spec
        Which table it is.
    catalog
        The survey's catalogue, a row a galaxy, with `id_str` and `split`.
    targets, within
        What the experiment predicts, and by the same names which rows of the catalogue (n,) lie within the cut.
    head_target
        The target that the network's own head predicts, if it has one; then the features are described on the galaxies
        within its cut.
    morphology, nuisances, held_fixed, n_permutations
        Settings of [interpretation].
    trivial
        What any network sees: columns, or differences of two; those that the catalogue has are projected out of
        features for nulls.
    another_seed
        From ids to the features of the same method by another seed, which tell what of a feature is noise of its
        training; None without one.
    untrained
        From ids to features of an untrained network, the null of what features may be said to have learnt; None
        without one.
    has_factors
        Whether the catalogue knows the factors that made the galaxies, as a mock survey's does.
    values_of
        From ids to features, dense or CSR.
    load_reader
        Returns what reads the features in what they are made of.
    load_head
        Returns weights (n_outputs, d) and bias (n_outputs,) of the network's own head, in label units; None: no head.
    load_embedding
        From ids to the embeddings (n, d_in) that the features decompose; None where they decompose none.
    load_perturbed
        Returns embeddings of changed cutouts, if the network behind the table was run over some.
    sight
        Where the network looks, if that is known.
    autoencoder
        The way back to cutouts, if there is one.
    cutouts_of
        From ids to cutouts, uint8 (n, side, side, 3); None for a survey without images.
    """

    spec: TableSpec
    catalog: pd.DataFrame
    targets: Mapping[str, Target]
    within: Mapping[str, NDArray[np.bool_]]
    head_target: str | None = None
    morphology: Sequence[str]
    nuisances: Sequence[str]
    held_fixed: Sequence[str]
    n_permutations: int
    trivial: Sequence[str] = ()
    untrained: Callable[[GalaxyIds], FeatureMatrix] | None = None
    another_seed: Callable[[GalaxyIds], FeatureMatrix] | None = None
    has_factors: bool = False
    values_of: Callable[[GalaxyIds], FeatureMatrix]
    load_reader: Callable[[], Reader]
    load_head: Callable[[], tuple[NDArray[np.float64], NDArray[np.float64]]] | None = None
    load_embedding: Callable[[GalaxyIds], FeatureMatrix] | None = None
    load_perturbed: Callable[[], Perturbed] | None = None
    sight: Sight | None = None
    autoencoder: Autoencoder | None = None
    cutouts_of: Callable[[GalaxyIds], NDArray[np.uint8]] | None = None

    @property
    def traits(self) -> Traits:
        """What the table's kind is."""
        return TRAITS[self.spec.kind]

    @cached_property
    def of_interest(self) -> NDArray[np.bool_]:
        """Rows of the catalogue (n,) that the features are described on, at most `MAX_ROWS` of each part."""
        within = np.ones(len(self.catalog), dtype=bool)
        if self.head_target is not None:
            within = self.within[self.head_target]
        return at_most(within, self.catalog["split"].to_numpy())

    @cached_property
    def of_all(self) -> NDArray[np.bool_]:
        """Rows of the catalogue (n,) by which all tables are compared, whatever their target: as `of_interest`."""
        return at_most(np.ones(len(self.catalog), dtype=bool), self.catalog["split"].to_numpy())

    @cached_property
    def train(self) -> Part:
        """The train galaxies."""
        return self._part("train")

    @cached_property
    def valid(self) -> Part:
        """The valid galaxies."""
        return self._part("valid")

    @cached_property
    def test(self) -> Part:
        """The test galaxies."""
        return self._part("test")

    @cached_property
    def reader(self) -> Reader:
        """What reads the features in what they are made of."""
        return self.load_reader()

    @cached_property
    def head(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Weights (n_outputs, d) and bias (n_outputs,) of the network's own head, in label units; None: no head."""
        return None if self.load_head is None else self.load_head()

    @property
    def head_columns(self) -> tuple[str, ...]:
        """The label columns that the head predicts."""
        return () if self.head_target is None else self.targets[self.head_target].columns

    def _part(self, name: Literal["train", "valid", "test"]) -> Part:
        rows = self.catalog[self.of_interest & (self.catalog["split"] == name).to_numpy()]
        return Part(rows, self._labels(rows), self.values_of(rows["id_str"]))

    def _labels(self, rows: pd.DataFrame) -> pd.DataFrame:
        """All labels; a column that targets name is only known for the galaxies within the cut of one of them."""
        wanted = [name for target in self.targets.values() for name in target.columns]
        labels = labels_and_targets(rows, [*wanted, *(name for name in POSITION if name in rows)])
        labels = labels.reset_index(drop=True)
        places = self.catalog.index.get_indexer(rows.index)
        for column in {name for target in self.targets.values() for name in target.columns}:
            cuts = [self.within[name] for name, target in self.targets.items() if column in target.columns]
            labels.loc[~np.logical_or.reduce(cuts)[places], column] = np.nan
        return labels


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a question found; empty where the table has not what it takes.

    Attributes
    ----------
    tables
        Tidy tables by name, without the columns that say which feature table they are of.
    of_features
        A row a feature, `feature` first: what of the answer belongs into the table `features`.
    arrays
        Arrays by name, for figures.
    texts
        Texts by the name of their file.
    """

    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    of_features: pd.DataFrame | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


NOTHING = Answer()


def at_most(within: NDArray[np.bool_], split: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Return these rows of the catalogue (n,), or `MAX_ROWS` of each part of the split, spread evenly over them."""
    kept = within.copy()
    for part in ("train", "valid", "test"):
        rows = np.flatnonzero(within & (split == part))
        chosen = evenly(rows, MAX_ROWS)
        if len(chosen) < len(rows):
            kept[rows] = False
            kept[chosen] = True
            log.info("%d of %d %s galaxies, spread evenly over the catalogue, stand for all", MAX_ROWS, len(rows), part)
    return kept


def usable_labels(
    table: DescribedTable, patterns: Sequence[str], what: str
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Return the label columns of valid and test galaxies that fit a pattern and can be used; None if none can.

    Usable is a column that is known for `association.MIN_ROWS` galaxies or more of both parts and varies among them.

    Parameters
    ----------
    patterns
        Names of columns, with `*` for any text.
    what
        What such columns are called in the log, where there is none.
    """
    valid, test = table.valid.labels, table.test.labels
    usable = [
        str(name)
        for name in valid
        if any(fnmatchcase(str(name), pattern) for pattern in patterns)
        and all(part[name].count() >= MIN_ROWS and part[name].min() < part[name].max() for part in (valid, test))
    ]
    if not usable:
        log.info("the catalogue has no %s for %d valid and test galaxies each: left out", what, MIN_ROWS)
        return None
    return valid[usable], test[usable]


def known_columns(valid: pd.DataFrame, test: pd.DataFrame, what: str) -> "pd.Index[str]":
    """Return the names of the columns that are known for `association.MIN_ROWS` galaxies or more of both parts.

    Parameters
    ----------
    valid, test : DataFrame
        The same columns; NaN where not measured.
    what
        What the columns are called in messages.

    Raises
    ------
    ValueError
        If the columns differ, or none is known for enough galaxies.
    """
    if list(valid.columns) != list(test.columns):
        raise ValueError(f"valid and test {what} differ: {list(valid.columns)}, {list(test.columns)}")
    is_known = (valid.notna().sum() >= MIN_ROWS) & (test.notna().sum() >= MIN_ROWS)
    if not is_known.any():
        raise ValueError(f"none of {len(is_known)} {what} is known for {MIN_ROWS} valid and {MIN_ROWS} test galaxies")
    return valid.columns[is_known]
