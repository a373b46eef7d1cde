"""The split of a survey into train, valid and test: its settings, and the rule that divides a catalogue.

Whoever adds a kind of split adds its settings to the union `Split` and its rule to `split_catalog`.
"""

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, assert_never

from sfnetlab.errors import DataError
from sfnetlab.settings import require, require_fractions

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HashSplit:
    """Train, valid or test from a salted hash of the id: stable when galaxies are added or removed."""

    kind: Literal["hash"] = "hash"
    salt: str = "sfnetlab"
    """Another salt is another split."""
    fractions: tuple[float, ...] = (0.7, 0.1, 0.2)
    """Shares of train, valid and test."""
    probe_share: float = 0.0
    """Share of the train galaxies that what learns from a label (networks, PLS) leaves to the probes of its features:
    these are fitted on them alone. 0: probes are fitted on rows that such features have learnt."""
    neighbour_radius_arcsec: float | None = None
    """Galaxies closer than this on the sky fall into one part; 0: only equal ids. Not set: as far as cutouts share
    pixels, the square root of 2 times their side (two squares may meet at their corners), or 54 where the survey does
    not know its scale."""

    def __post_init__(self) -> None:
        require_fractions(self.fractions)
        _require_share(self.probe_share)
        require((self.neighbour_radius_arcsec or 0) >= 0, "neighbour_radius_arcsec must not be negative")


@dataclass(frozen=True, kw_only=True)
class RandomSplit:
    """A random permutation of the rows, as the SFNet paper drew it (seed 256, last 20 % held out)."""

    kind: Literal["random"] = "random"
    seed: int = 256
    """Seed of the permutation."""
    fractions: tuple[float, ...] = (0.7, 0.1, 0.2)
    """Shares of train, valid and test."""
    probe_share: float = 0.0
    """As of the kind "hash"."""

    def __post_init__(self) -> None:
        require_fractions(self.fractions)
        _require_share(self.probe_share)


def _require_share(probe_share: float) -> None:
    require(0 <= probe_share < 1, f"probe_share must lie in [0, 1), got {probe_share}")


Split = HashSplit | RandomSplit

USUAL_SIDE_ARCSEC = 38.0
"""Side of cutouts where the survey does not know it: that of the SFNet paper's."""


def split_catalog(catalog: "pd.DataFrame", split: Split, side_arcsec: float = USUAL_SIDE_ARCSEC) -> "NDArray[np.str_]":
    """Return the part of each galaxy, 'train', 'probe', 'valid' or 'test', in the order of the catalogue's rows.

    'probe' are the train galaxies that are left to probes, `probe_share` of them.

    Hash: galaxies within the radius of `HashSplit` of each other, and chains of them, form a group. The group goes
    where sha256(salt + its smallest id) falls in [0, 1), so neither the order of rows nor galaxies elsewhere matter.
    A galaxy is a group of its own where the catalogue has no columns `ra` and `dec` (degrees), or they hold NaN.

    Random: fastai's RandomSplitter over the rows as they stand. The first int(share * n) rows of torch's permutation
    are test (the SFNet paper's held-out rows: seed 256, a catalogue to which its cut was applied before), the next
    ones valid.

    Parameters
    ----------
    catalog : DataFrame of n rows
        With `id_str`, each id once.
    side_arcsec
        Side of the cutouts, which decides the radius where the split does not.

    Returns
    -------
    ndarray of str of shape (n,)

    Raises
    ------
    DataError
        If a part gets no galaxy, or positions are not degrees.
    """
    match split:
        case HashSplit():
            given = split.neighbour_radius_arcsec
            radius_arcsec = 2**0.5 * side_arcsec if given is None else given
            parts = _hash_split(catalog, split, radius_arcsec)
        case RandomSplit():
            parts = _random_split(len(catalog), split)
        case _ as never:
            assert_never(never)
    wanted = ("train", *(["probe"] if split.probe_share > 0 else []), "valid", "test")
    empty = [part for part in wanted if part not in parts]
    if empty:
        raise DataError(
            f"split: {' and '.join(empty)} got none of {len(catalog):,} galaxies with fractions "
            f"{list(split.fractions)}; use more galaxies, other fractions or a smaller neighbour_radius_arcsec"
        )
    return parts


def _hash_split(catalog: "pd.DataFrame", split: HashSplit, radius_arcsec: float) -> "NDArray[np.str_]":
    import numpy as np

    from sfnetlab.surveys.catalog import texts_in_parts

    group = _sky_groups(catalog, radius_arcsec)
    by_id = catalog["id_str"].argsort(kind="stable").to_numpy()
    _, first = np.unique(group[by_id], return_index=True)
    smallest_ids = catalog["id_str"].iloc[by_id[first]]  # one a group, in order of the groups' numbers
    positions = np.fromiter(
        (_hash_position(split.salt + id_str) for part in texts_in_parts(smallest_ids) for id_str in part),
        np.float64,
        len(smallest_ids),
    )
    train, valid, _ = split.fractions
    parts = np.array(["train", "probe", "valid", "test"])
    edges = [train * (1 - split.probe_share), train, train + valid]
    return parts[np.searchsorted(edges, positions, side="right")][group]


def _hash_position(text: str) -> float:
    bits = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11
    return bits / 2**53  # 53 bits: exact in a float, never rounded up to 1


def _sky_groups(catalog: "pd.DataFrame", radius_arcsec: float) -> "NDArray[np.intp]":
    """The number of each galaxy's group (n,): the connected components of galaxies within the radius, from 0."""
    import numpy as np

    n = len(catalog)
    if radius_arcsec == 0:
        return np.arange(n)
    if not {"ra", "dec"} <= set(catalog.columns):
        _logger.warning("split: no columns 'ra' and 'dec', so neighbours on the sky may fall into different parts")
        return np.arange(n)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    from sfnetlab.surveys.catalog import columns_as_floats

    ra, dec = columns_as_floats(catalog, ("ra", "dec"), "split")
    placed = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    wrong = placed[(np.abs(ra[placed]) > 360) | (np.abs(dec[placed]) > 90)]
    if len(wrong):
        row = wrong[0]
        raise DataError(
            f"split: {len(wrong):,} positions are not degrees, first {catalog['id_str'].iloc[row]}: ra {ra[row]}, "
            f"dec {dec[row]}; leave unknown positions empty"
        )
    alpha, delta = np.radians(ra[placed]), np.radians(dec[placed])
    on_sphere = np.stack([np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)], axis=1)
    chord = 2 * np.sin(np.radians(radius_arcsec / 3600) / 2)
    pairs = placed[KDTree(on_sphere).query_pairs(chord, output_type="ndarray")]
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    n_groups, group = connected_components(links, directed=False)
    _logger.info("split: %d galaxies in %d groups, the largest of %d", n, n_groups, np.bincount(group).max())
    return group.astype(np.intp)


def _random_split(n: int, split: RandomSplit) -> "NDArray[np.str_]":
    import numpy as np
    import torch

    order = torch.randperm(n, generator=torch.Generator().manual_seed(split.seed)).numpy()
    _, valid, test = split.fractions
    n_test = int(test * n)
    parts = np.full(n, "train")
    parts[order[:n_test]] = "test"
    parts[order[n_test : n_test + int(valid * n)]] = "valid"
    train = order[n_test + int(valid * n) :]
    parts[train[: int(split.probe_share * len(train))]] = "probe"
    return parts
