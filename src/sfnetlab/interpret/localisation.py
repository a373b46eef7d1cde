"""Where in the cutout a feature looks: weight of its activation map inside the mask of a component, against chance."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import resample_counts

FACTOR_OF_COMPONENT = {
    "bulge": "factor_bulge_to_total",
    "arms": "factor_arm_strength",
    "clumps": "factor_clump_strength",
    "companion": "factor_companion_flux_ratio",
}
"""The factor of the mock survey that makes each component for which there are masks."""


def localise(maps: NDArray[np.floating], masks: NDArray[np.bool_]) -> pd.DataFrame:
    """Share of each map's weight that falls inside the mask, once the map is upsampled bilinearly to the cutout.

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
    """Means over galaxies with 95 % percentile intervals.

    Parameters
    ----------
    table : DataFrame
        From `localise`; rows of NaN are left out.

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
    """One map (h, w), or a batch (..., h, w), bilinearly on the pixels of the cutout, (..., height, width)."""
    down, right = (
        _upsampling(size, cells) for size, cells in zip((height, width), activation_map.shape[-2:], strict=True)
    )
    return down @ np.asarray(activation_map, dtype=np.float64) @ right.T


def _upsampling(n_pixels: int, n_cells: int) -> NDArray[np.float64]:
    """(n_pixels, n_cells): linear interpolation between cell centres, flat beyond the outermost."""
    centres = (np.arange(n_pixels) + 0.5) * n_cells / n_pixels - 0.5
    return np.stack([np.interp(centres, np.arange(n_cells), unit) for unit in np.eye(n_cells)], axis=1)
