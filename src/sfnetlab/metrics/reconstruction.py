"""How much of an embedding a reconstruction leaves unexplained, and what a probe of the embedding loses by it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import sample_and_resamples
from sfnetlab.metrics.tables import checked_table, row_slices

_MEDIAN_ROWS = 2048
"""Columns' medians are those of so many rows at most, spread evenly over all."""


def fraction_of_variance_unexplained(
    x: NDArray[np.floating], x_hat: NDArray[np.floating], mean: NDArray[np.floating] | None = None
) -> float:
    """Return the residual sum of squares over the total sum of squares about each column's mean.

    1 is what predicting the column means achieves, 0 is perfect, more than 1 is worse than the means. The total is
    taken about *column* means: about one grand mean, unequal columns make a constant predictor look nearly perfect.
    Sums run over all rows in blocks, so that memory-mapped arrays will do.

    Parameters
    ----------
    x, x_hat : ndarray of shape (n_samples, d_in)
        Embeddings and their reconstructions, same units (dimensionless here).
    mean : ndarray of shape (d_in,), optional
        The means to compare with, for example of the train rows; by default those of `x` itself.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If shapes differ, there is no row, a value is not finite, or every column of `x` is constant.

    References
    ----------
    Gao et al. 2024, arXiv:2406.04093, section 2.
    """
    checked_table(x, "x")
    checked_table(x_hat, "x_hat")
    if x.shape != x_hat.shape or x.shape[0] == 0:
        raise ValueError(f"expected x and x_hat of one shape (n_samples, d_in), got {x.shape} and {x_hat.shape}")
    if all(np.array_equal(x[rows], np.broadcast_to(x[0], x[rows].shape)) for rows in row_slices(x.shape)):
        raise ValueError(f"every column of x is constant over its {x.shape[0]} rows: there is no variance to explain")
    if mean is None:
        mean = sum(x[rows].sum(axis=0, dtype=np.float64) for rows in row_slices(x.shape)) / x.shape[0]
    elif mean.shape != x.shape[1:] or not np.isfinite(mean).all():
        raise ValueError(f"mean: expected finite values of shape {x.shape[1:]}, got {mean.shape}")
    residual = total = 0.0
    for rows in row_slices(x.shape):
        block = x[rows].astype(np.float64)
        residual += float(np.sum((block - x_hat[rows]) ** 2))
        total += float(np.sum((block - mean) ** 2))
    return residual / total


def robust_fvus(x: NDArray[np.floating], x_hat: NDArray[np.floating]) -> dict[str, float]:
    """Return fractions of variance unexplained that no single column, and no broken row, can decide.

    Parameters
    ----------
    x, x_hat : ndarray of shape (n_samples, d_in)
        Embeddings and their reconstructions, same units. They are read in blocks.

    Returns
    -------
    dict
        `fvu_by_column`: the mean over columns of each one's own FVU, which is the FVU of embeddings standardised by
        column; constant columns are left out. `fvu_median_row`: the median over rows of the squared error, over the
        median of the squared distance from the columns' medians; NaN where half of the rows are at these medians.

    Raises
    ------
    ValueError
        As `fraction_of_variance_unexplained`.
    """
    fraction_of_variance_unexplained(x, x_hat)  # raises what is to be raised
    mean = sum(x[rows].sum(axis=0, dtype=np.float64) for rows in row_slices(x.shape)) / len(x)
    center = np.median(x[np.unique(np.linspace(0, len(x) - 1, _MEDIAN_ROWS).astype(np.intp))], axis=0)
    residual, total = np.zeros((2, x.shape[1]))
    errors, distances = np.empty((2, len(x)))
    for rows in row_slices(x.shape):
        block = x[rows].astype(np.float64)
        squares = np.square(block - x_hat[rows])
        residual += squares.sum(axis=0)
        total += np.square(block - mean).sum(axis=0)
        errors[rows], distances[rows] = squares.sum(axis=1), np.square(block - center).sum(axis=1)
    # What is left of a constant column is the rounding of its mean.
    varies = total > len(x) * (np.finfo(np.float32).eps * mean) ** 2
    middle = float(np.median(distances))
    return {
        "fvu_by_column": float(np.mean(residual[varies] / total[varies])) if varies.any() else float("nan"),
        "fvu_median_row": float(np.median(errors)) / middle if middle > 0 else float("nan"),
    }


def loss_recovered(
    columns: Sequence[str],
    y_true: NDArray[np.float64],
    mean: NDArray[np.float64],
    of_embedding: NDArray[np.float64],
    of_reconstruction: NDArray[np.float64],
    *,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return what a probe of an embedding keeps when it is given reconstructions, on test galaxies.

    `rmse_reconstruction` is its error on them, in label units, and `loss_recovered` = (MSE of the mean - MSE on
    reconstructions) / (MSE of the mean - MSE on embeddings): 1 is nothing lost, 0 is no better than the mean of the
    train labels. There is no such row where the probe of the embedding itself is no better than the mean, for then
    there is nothing to recover.

    Parameters
    ----------
    columns
        Names of the label columns.
    y_true, of_embedding, of_reconstruction : ndarray of shape (n, n_columns)
        Labels, and predictions of the probe from embeddings and from reconstructions, in label units.
    mean : ndarray of shape (n_columns,)
        The means of the train labels.

    Returns
    -------
    DataFrame
        `column, metric, value, low, high`, with 95 % bootstrap intervals over galaxies.
    """
    predictions = (np.broadcast_to(mean, y_true.shape), of_embedding, of_reconstruction)
    squared_errors = np.stack([np.square(values - y_true) for values in predictions])
    blocks = [
        [squared_errors[:, :, i] @ weights.T for i in range(len(columns))]
        for weights in sample_and_resamples(len(y_true), n_resamples, seed)
    ]
    rows = []
    for i, column in enumerate(columns):
        mse_mean, mse_embedding, mse_reconstruction = np.hstack([block[i] for block in blocks])
        numbers = {"rmse_reconstruction": np.sqrt(mse_reconstruction)}
        if mse_mean[0] > mse_embedding[0]:
            numbers["loss_recovered"] = (mse_mean - mse_reconstruction) / (mse_mean - mse_embedding)
        for metric, (value, *resampled) in numbers.items():
            low, high = np.quantile(resampled, (0.025, 0.975))
            rows.append({"column": column, "metric": metric, "value": value, "low": low, "high": high})
    return pd.DataFrame(rows)
