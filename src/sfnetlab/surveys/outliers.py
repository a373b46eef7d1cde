"""Labels so far from all others that a fit would see little else: said before training, left out, or refused."""

import logging
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.errors import DataError
from sfnetlab.metrics.regression import NMAD_SCALE
from sfnetlab.settings import Target

FAR = 50.0
"""Robust spreads from the median beyond which a label is spoken of, if such labels hold `_SHARE` of the squares."""
ABSURD = 1e6
"""Robust spreads beyond which a label is no measurement: an error."""
_SHARE = 0.1
_FIRST = 5

_logger = logging.getLogger(__name__)


def plausible_rows(
    catalog: pd.DataFrame, target: Target, values: NDArray[np.float64], rows: NDArray[np.bool_], where: str
) -> NDArray[np.bool_]:
    """Return those of some rows, bool (n,), whose labels lie within `target.max_spreads` of each column's median.

    A robust spread is 1.4826 median absolute deviations of the rows given, of those off the median where these are
    fewer than half. Rows that are left out are counted, and labels that rule the squared error are named, in a
    warning; once for each survey and target.

    Parameters
    ----------
    values : ndarray of shape (n_columns, n)
        The target's columns; finite in `rows`.

    Raises
    ------
    DataError
        If a label that is not left out lies more than `ABSURD` robust spreads from the median.
    """
    kept = rows.copy()
    for name, column in zip(target.columns, values, strict=True):
        deviations = np.where(rows, np.abs(column - np.median(column[rows])), 0.0)
        off = deviations[deviations > 0]
        spread = NMAD_SCALE * float(np.median(deviations[rows]) or (np.median(off) if len(off) else 1.0))
        distances = deviations / spread
        if target.max_spreads is not None:
            is_far = distances > target.max_spreads
            kept &= ~is_far
            if is_far.any():
                which = _named(catalog, column, distances, is_far)
                _say(f"{where}: target column {name!r}: max_spreads = {target.max_spreads:g} leaves out {which}")
            distances[is_far] = 0
        is_far = distances > FAR
        # In units of the largest, whose square may be too large for a float.
        squares = np.square(distances / (distances.max() or 1.0))
        if squares[is_far].sum() <= _SHARE * squares.sum():
            continue
        about = (
            f"{where}: target column {name!r}: {_named(catalog, column, distances, is_far)}, but the median is "
            f"{np.median(column[rows]):.6g} and a robust spread {spread:.3g}"
        )
        advice = (
            "leave empty what was not measured, take logarithms of what spans decades, or set "
            f"max_spreads = {FAR:g} for this target"
        )
        if distances.max() > ABSURD:
            raise DataError(f"{about}: this is no measurement; {advice}")
        _say(f"{about}: a squared error is about these rows; {advice}")
    return kept


def _named(
    catalog: pd.DataFrame, column: NDArray[np.float64], distances: NDArray[np.float64], is_far: NDArray[np.bool_]
) -> str:
    """How many values are far, and the farthest of them with their ids."""
    far = np.flatnonzero(is_far)
    far = far[np.argsort(-distances[far], kind="stable")][:_FIRST]
    first = (f"{column[row]:.6g} (id {catalog['id_str'].iloc[row]}, {distances[row]:.3g} spreads)" for row in far)
    return f"{int(is_far.sum())} of {len(column)} rows far from all others: {', '.join(first)}"


@cache
def _say(message: str) -> None:
    """Warn, once: every stage of a run that reads the target comes here."""
    _logger.warning(message)
