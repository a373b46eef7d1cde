"""Where in the cutout a feature looks: weight of its activation map inside the mask of a component, against chance."""

import logging
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.table import N_BOOTSTRAP, NOTHING, SEED, Answer, DescribedTable, Sight
from sfnetlab.metrics.association import spearman
from sfnetlab.metrics.bootstrap import resample_counts
from sfnetlab.metrics.maps import LEAST_CELLS, is_fine
from sfnetlab.metrics.tables import columns_of

log = logging.getLogger(__name__)

FACTOR_OF_COMPONENT = {
    "bulge": "factor_bulge_to_total",
    "arms": "factor_arm_strength",
    "clumps": "factor_clump_strength",
    "companion": "factor_companion_flux_ratio",
}
"""The factor of the mock survey that makes each component for which there are masks."""
N_LOCALISED = 100
"""Galaxies whose activation maps are held against the mask of a component."""


class _Localised(NamedTuple):
    """Where the feature of one component looks."""

    rows: pd.DataFrame
    maps: NDArray[np.float32]
    masks: NDArray[np.bool_]


def ask(table: DescribedTable) -> Answer:
    """Return where the feature that follows each component of mock galaxies best looks; nothing without maps and masks.

    `localised` has a row a galaxy and component, `localisation` the means over galaxies. The arrays `localised_maps`
    (n, h, w), float32, and `localised_masks` (n, side, side), bool, have the rows of `localised`.
    """
    if table.sight is None:
        return NOTHING
    components = [
        found
        for component, factor in FACTOR_OF_COMPONENT.items()
        if (found := _localise_component(table, table.sight, component, factor)) is not None
    ]
    if not components:
        return NOTHING
    localised = pd.concat([found.rows for found in components], ignore_index=True)
    by = ["component", "factor", "feature", "rho"]
    summaries = [
        summarise_localisation(rows, n_bootstrap=N_BOOTSTRAP, seed=SEED).assign(**dict(zip(by, about, strict=True)))
        for about, rows in localised.groupby(by)
    ]
    return Answer(
        tables={"localised": localised, "localisation": pd.concat(summaries, ignore_index=True)},
        arrays={
            "localised_maps": np.concatenate([found.maps for found in components]),
            "localised_masks": np.concatenate([found.masks for found in components]),
        },
    )


def _localise_component(table: DescribedTable, sight: Sight, component: str, factor: str) -> _Localised | None:
    """The feature that follows the factor best on train and valid galaxies, on test galaxies that have both."""
    known = pd.concat([table.train.rows, table.valid.rows])
    rho = spearman(table.values_of(known["id_str"]), known[[factor]].to_numpy(dtype=np.float64))[:, 0]
    if not np.isfinite(rho).any():
        return None
    feature = int(np.nanargmax(rho))
    values = columns_of(table.test.values, np.array([feature])).sum(axis=1)
    shown = np.flatnonzero((values > 0) & (table.test.rows[factor].to_numpy() > 0))
    shown = np.sort(np.random.default_rng(SEED).permutation(shown)[:N_LOCALISED])
    if len(shown) < 2:
        return None
    rows = table.test.rows.iloc[shown]
    masks, maps = sight.component_masks(rows, component), sight.activation_maps(rows["id_str"], feature)
    if not is_fine(maps):
        log.warning(
            "%s: maps of %d x %d cells do not say where a feature looks (%d x %d are needed), left out: %s; take "
            "larger cutouts, or a ResNet",
            table.spec.name, *maps.shape[1:], LEAST_CELLS, LEAST_CELLS, component,
        )  # fmt: skip
        return None
    localised = localise(maps, masks)
    if localised["inside"].notna().sum() < 2:
        return None
    about = {"component": component, "factor": factor, "feature": feature, "rho": float(rho[feature])}
    return _Localised(localised.assign(id_str=rows["id_str"].to_numpy(), **about), maps, masks)


def localise(maps: NDArray[np.floating], masks: NDArray[np.bool_]) -> pd.DataFrame:
    """Return which share of each map's weight falls inside the mask, with the map bilinear on the cutout's pixels.

    Nothing is upsampled: the weight of a coarse map inside a mask is its product with the mask carried down to the
    map's grid, so that memory stays small.

    Parameters
    ----------
    maps : ndarray of shape (n, h, w)
        Activation maps of one feature, 0 or more, row 0 north.
    masks : ndarray of bool, shape (n, H, W)
        Where the component shows in the same galaxies.

    Returns
    -------
    DataFrame
        A row a galaxy, in order: `inside` (share of the map's weight inside the mask), `area` (share of the cutout
        that the mask covers: what a flat map gives), `others` (mean share of the other galaxies' maps inside this
        mask: what the feature gives where it does not look at this galaxy). NaN throughout where the map is zero
        or the mask empty; `others` also where there is no other map.

    Raises
    ------
    ValueError
        If shapes do not fit, or a map has a negative or non-finite value.
    """
    maps, masks = np.asarray(maps, dtype=np.float64), np.asarray(masks, dtype=bool)
    if maps.ndim != 3 or masks.ndim != 3 or len(maps) != len(masks) or maps.size == 0 or masks.size == 0:
        raise ValueError(f"expected maps (n, h, w) and masks (n, H, W), got {maps.shape} and {masks.shape}")
    if not np.isfinite(maps).all() or maps.min() < 0:
        raise ValueError("maps: expected finite values, 0 or more")
    down, right = (_upsampling(size, cells) for size, cells in zip(masks.shape[1:], maps.shape[1:], strict=True))
    carried = np.einsum("Yy,nYX,Xx->nyx", down, masks.astype(np.float64), right, optimize=True).reshape(len(maps), -1)
    flat = maps.reshape(len(maps), -1)
    weight = flat @ np.outer(down.sum(axis=0), right.sum(axis=0)).ravel()
    is_known = (weight > 0) & masks.any(axis=(1, 2))
    shares = np.divide(flat, weight[:, None], out=np.zeros_like(flat), where=weight[:, None] > 0)
    inside = np.sum(shares * carried, axis=1)
    has_map = weight > 0
    n_others = np.count_nonzero(has_map) - 1
    others = (shares.sum(axis=0) @ carried.T - inside) / n_others if n_others > 0 else np.nan
    table = pd.DataFrame({"inside": inside, "area": masks.mean(axis=(1, 2)), "others": others})
    table.loc[~is_known] = np.nan
    return table


def summarise_localisation(table: pd.DataFrame, *, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Return means over galaxies with 95 % percentile intervals.

    Parameters
    ----------
    table : DataFrame
        From `localise`; rows of NaN are left out.
    n_bootstrap, seed
        Resamples of the galaxies for the intervals, and their seed.

    Returns
    -------
    DataFrame
        `metric, value, low, high, n`: `inside`, `area`, `others`, `inside_minus_area`, `inside_minus_others` (above
        0: the feature looks at the component, not just where such components usually are).

    Raises
    ------
    ValueError
        If fewer than two galaxies have a map and a mask.
    """
    known = table.dropna()
    if len(known) < 2:
        raise ValueError(f"localisation needs two galaxies or more with a map and a mask, got {len(known)}")
    values = known[["inside", "area", "others"]].assign(
        inside_minus_area=known["inside"] - known["area"], inside_minus_others=known["inside"] - known["others"]
    )
    matrix = values.to_numpy()
    resampled = np.stack([counts @ matrix / len(matrix) for counts in resample_counts(len(matrix), n_bootstrap, seed)])
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return pd.DataFrame(
        {"metric": values.columns, "value": matrix.mean(axis=0), "low": low, "high": high, "n": len(matrix)}
    )


def upsampled(activation_map: NDArray[np.floating], height: int, width: int) -> NDArray[np.float64]:
    """Return maps (..., h, w) on the pixels of the cutout, (..., height, width), bilinearly."""
    down, right = (
        _upsampling(size, cells) for size, cells in zip((height, width), activation_map.shape[-2:], strict=True)
    )
    return down @ np.asarray(activation_map, dtype=np.float64) @ right.T


def _upsampling(n_pixels: int, n_cells: int) -> NDArray[np.float64]:
    """(n_pixels, n_cells): linear interpolation between cell centres, flat beyond the outermost.

    A ResNet's strided layers are padded by half their kernel, so that a cell is centred on the first pixel of its
    square, not in its middle.
    """
    centres = np.arange(n_pixels) * n_cells / n_pixels
    return np.stack([np.interp(centres, np.arange(n_cells), unit) for unit in np.eye(n_cells)], axis=1)
