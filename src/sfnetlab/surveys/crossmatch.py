"""The galaxies that two catalogues share, found by id or by position within a radius, always one to one.

Positions are compared on the sphere, so that poles and RA 0 are places like any other.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab import runtime
from sfnetlab.errors import DataError
from sfnetlab.surveys.catalog import columns_as_floats
from sfnetlab.surveys.messages import first_few

LARGEST_RADIUS_ARCSEC = 3600.0
_ROUNDING = 1e-9
"""Candidates are sought in a radius larger by this share, then judged by their exact separation."""


class CrossMatch(NamedTuple):
    """Pairs of rows, in the order of the left rows. No row is in two pairs."""

    left: NDArray[np.intp]
    """The left row of each pair."""
    right: NDArray[np.intp]
    """The right row of each pair."""
    pairs: pd.DataFrame
    """A row a pair. By position: `separation_arcsec`; `n_right_within`, the number of right rows within the radius of
    the left one; and `n_left_within`, the number of left rows within the radius of the right one. 1 means that there is
    no other candidate. By id: no columns."""
    report: str
    """How many pairs were found, for people."""


def match_by_id(left: pd.DataFrame, right: pd.DataFrame) -> CrossMatch:
    """Pair the rows that have the same `id_str`.

    Raises
    ------
    DataError
        If an id occurs more than once in a catalogue, or none is in both.
    """
    for name, catalog in (("left", left), ("right", right)):
        repeated = catalog["id_str"][catalog["id_str"].duplicated()]
        if len(repeated):
            raise DataError(
                f"{name}: {len(repeated):,} rows repeat an id: {first_few(repeated)}; keep one row a galaxy"
            )
    place = pd.Index(right["id_str"]).get_indexer(pd.Index(left["id_str"]))
    rows = np.flatnonzero(place >= 0)
    _require_pairs(len(rows), f"no id is in both: {first_few(left['id_str'])} against {first_few(right['id_str'])}")
    report = (
        f"{len(rows):,} galaxies are in both by id, {len(left) - len(rows):,} only in the left catalogue, "
        f"{len(right) - len(rows):,} only in the right one"
    )
    return CrossMatch(rows, place[rows], pd.DataFrame(index=range(len(rows))), report)


def match_by_position(left: pd.DataFrame, right: pd.DataFrame, radius_arcsec: float) -> CrossMatch:
    """Pair the rows that are each other's nearest and no further apart than the radius.

    A pair is ambiguous where either row has more than one candidate within the radius. Of candidates at exactly the
    same separation any one is taken. A left row stays without a pair where its nearest right row is nearer to another.

    Parameters
    ----------
    left, right : DataFrame
        With `id_str`, `ra` and `dec` (degrees, ICRS or any one frame).

    Raises
    ------
    DataError
        If positions are missing, NaN or no degrees, or no pair is found.
    """
    from astropy.coordinates import angular_separation
    from scipy.spatial import KDTree

    if not 0 < radius_arcsec <= LARGEST_RADIUS_ARCSEC:
        raise DataError(f"the radius must lie in (0, {LARGEST_RADIUS_ARCSEC:g}] arcsec, got {radius_arcsec:g}")
    places = [_positions(catalog, name) for name, catalog in (("left", left), ("right", right))]
    vectors = [_unit_vectors(*each) for each in places]
    trees = [KDTree(each) for each in vectors]
    chord = 2 * np.sin(np.radians(radius_arcsec / 3600) / 2) * (1 + _ROUNDING)
    n_threads = runtime.n_threads()

    def nearest(side: int) -> NDArray[np.intp]:
        """Return for each row the nearest one of the other side, or the number of its rows where that is too far."""
        _, found = trees[1 - side].query(vectors[side], distance_upper_bound=chord, workers=n_threads)
        return found

    nearest_right, nearest_left = nearest(0), nearest(1)
    near = np.flatnonzero(nearest_right < len(right))
    is_mutual = nearest_left[nearest_right[near]] == near
    rows, partners = near[is_mutual], nearest_right[near[is_mutual]]
    (ra_left, dec_left), (ra_right, dec_right) = places
    separation_deg = np.degrees(
        angular_separation(
            *(np.radians(each) for each in (ra_left[rows], dec_left[rows], ra_right[partners], dec_right[partners]))
        )
    )
    is_within = separation_deg * 3600 <= radius_arcsec
    rows, partners, separation_arcsec = rows[is_within], partners[is_within], separation_deg[is_within] * 3600
    _require_pairs(len(rows), f"no two galaxies within {radius_arcsec:g} arcsec; are both in degrees and of one epoch?")

    def n_within(side: int, chosen: NDArray[np.intp]) -> NDArray[np.int64]:
        tree, points = trees[1 - side], vectors[side][chosen]
        counted = tree.query_ball_point(points, chord, return_length=True, workers=n_threads)
        return np.maximum(counted, 1).astype(np.int64)

    pairs = pd.DataFrame(
        {
            "separation_arcsec": separation_arcsec,
            "n_right_within": n_within(0, rows),
            "n_left_within": n_within(1, partners),
        }
    )
    n_ambiguous = int((pairs[["n_right_within", "n_left_within"]] > 1).any(axis=1).sum())
    report = (
        f"{len(rows):,} pairs within {radius_arcsec:g} arcsec of {len(left):,} left and {len(right):,} right galaxies; "
        f"{n_ambiguous:,} of them ambiguous (another candidate within the radius), "
        f"{len(near) - len(rows):,} left galaxies lost theirs to a nearer one; separation: median "
        f"{np.median(separation_arcsec):.3g}, largest {separation_arcsec.max():.3g} arcsec"
    )
    return CrossMatch(rows, partners, pairs, report)


def joined_table(left: pd.DataFrame, right: pd.DataFrame, match: CrossMatch) -> pd.DataFrame:
    """Return a table with a row a pair: the left columns, the columns of the match, then the right columns.

    A right column whose name is taken gets the ending `_right`. After a match by id there is one `id_str`.

    Raises
    ------
    DataError
        If a name would stand for two columns.
    """
    right = right.drop(columns="id_str") if match.pairs.columns.empty else right
    taken = {*left.columns, *match.pairs.columns}
    others = right.rename(columns={name: f"{name}_right" for name in right.columns if name in taken})
    names = [*left.columns, *match.pairs.columns, *others.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"two columns would be called {', '.join(repeated)}: rename those of a former cross-match")
    parts = (left.iloc[match.left], match.pairs, others.iloc[match.right])
    return pd.concat([part.reset_index(drop=True) for part in parts], axis=1)


def _positions(catalog: pd.DataFrame, name: str) -> list[NDArray[np.float64]]:
    absent = [column for column in ("ra", "dec") if column not in catalog]
    if absent:
        raise DataError(f"{name}: no column {' and '.join(absent)}; it has {', '.join(map(str, catalog.columns[:30]))}")
    ra, dec = columns_as_floats(catalog, ("ra", "dec"), name)
    for is_bad, problem, advice in (
        (~np.isfinite(ra) | ~np.isfinite(dec), "no position", "leave them out"),
        ((np.abs(ra) > 360) | (np.abs(dec) > 90), "positions that are no degrees", "are these sexagesimal or radians?"),
    ):
        if is_bad.any():
            ids = catalog["id_str"][is_bad]
            raise DataError(
                f"{name}: {len(ids):,} of {len(catalog):,} galaxies have {problem}: {first_few(ids)}; {advice}"
            )
    return [ra, dec]


def _unit_vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    alpha, delta = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)], axis=1)


def _require_pairs(n: int, problem: str) -> None:
    if n == 0:
        raise DataError(problem)
