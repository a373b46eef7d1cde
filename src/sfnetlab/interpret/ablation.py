"""How many features are needed: the head's error, and the variance of the embedding, with only some of them kept."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import resample_counts
from sfnetlab.metrics.dictionary import fvu_of_blocks
from sfnetlab.metrics.regression import rmse
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import BLOCK_VALUES, FeatureMatrix, checked_labels, checked_table, column_mean_sd


def ablate_features(
    values_train: FeatureMatrix,
    values_test: FeatureMatrix,
    labels_test: pd.DataFrame,
    weights: NDArray[np.floating],
    bias: NDArray[np.floating],
    *,
    min_galaxies: Sequence[int] = (1, 10, 100, 1000, 10_000),
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """RMSE on test galaxies of a given linear head that sees only the most frequent features.

    Frequencies and means are of the train galaxies. The head is not fitted again: that is what a probe on few features
    is for. The features left out are set to zero (they did not fire) and, the other time, to their train mean (nothing
    is known of them), which differ where a feature is active in most galaxies.

    Parameters
    ----------
    values_train, values_test : (n_train, d), (n_test, d)
        Activations as the head sees them.
    labels_test : DataFrame, n_test rows
        A column an output of the head, in its order; finite.
    weights, bias : (d, m), (m,)
        Of the head, in label units.
    min_galaxies : sequence of int
        Numbers of train galaxies: kept are the features active in at least so many.
    n_resamples, seed
        Of the bootstrap over galaxies; the same galaxies are drawn for every row of the table.

    Returns
    -------
    DataFrame
        `rule` ("most_frequent" or "min_galaxies"), `threshold` (the number of features or galaxies of the rule),
        `n_kept` (features kept), `fill` ("zero" or "train_mean"), `column`, `rmse`, `low`, `high` (95 %, percentile),
        `n` (galaxies). The rule "most_frequent" keeps 1, 2, 4, ... and all features active on train; ties by number.

    Raises
    ------
    ValueError
        If shapes do not fit or a value is not finite.
    """
    train, table = checked_table(values_train, "values_train"), checked_table(values_test, "values_test")
    truth = checked_labels(labels_test.to_numpy(dtype=np.float64), table.shape[0], "labels_test")
    weights, bias = np.asarray(weights, dtype=np.float64), np.asarray(bias, dtype=np.float64)
    d, m = train.shape[1], truth.shape[1]
    if table.shape[1] != d or weights.shape != (d, m) or bias.shape != (m,):
        raise ValueError(
            f"expected values_test (n, {d}), weights ({d}, {m}) and bias ({m},) for {d} train features and {m} labels, "
            f"got {table.shape}, {weights.shape} and {bias.shape}"
        )
    count = np.rint(activation_frequency(values_train) * train.shape[0]).astype(np.int64)
    mean = column_mean_sd(train)[0]
    order = np.lexsort((np.arange(d), -count))
    n_alive = int(np.count_nonzero(count))
    kept = [("most_frequent", n, n) for n in doubling(n_alive)]
    kept += [("min_galaxies", least, int(np.count_nonzero(count >= least))) for least in min_galaxies]

    rows: list[dict[str, object]] = []
    errors: list[NDArray[np.float64]] = []
    for fill in ("zero", "train_mean"):
        for rule, threshold, n_kept in kept:
            own, left = weights.copy(), order[n_kept:]
            own[left] = 0
            constant = bias if fill == "zero" else bias + mean[left] @ weights[left]
            predicted = table @ own + constant
            for j, column in enumerate(labels_test.columns):
                errors.append((predicted[:, j] - truth[:, j]) ** 2)
                rows.append(
                    {
                        "rule": rule, "threshold": threshold, "n_kept": n_kept, "fill": fill, "column": column,
                        "rmse": rmse(truth[:, j], predicted[:, j]),
                    }
                )  # fmt: skip
    low, high = _resampled_rmse(np.column_stack(errors), n_resamples, seed)
    return pd.DataFrame(rows).assign(low=low, high=high, n=table.shape[0])


def explained_variance(
    embedding: NDArray[np.floating],
    values: FeatureMatrix,
    W_dec: NDArray[np.floating],
    b_dec: NDArray[np.floating],
    order: NDArray[np.integer],
    fill: NDArray[np.floating],
) -> pd.DataFrame:
    """Variance of the embedding that its reconstruction from the first few features alone explains, for any dictionary.

    1 - FVU of x_hat = sum over features of value times atom, plus `b_dec`, where the features not kept have the value
    `fill`; nothing is fitted again. PCA is a dictionary too: scores, components and mean. FVU is about the column means
    of these rows.

    Parameters
    ----------
    embedding : ndarray of shape (n, d_in)
        Test galaxies, on the scale on which `W_dec` reconstructs.
    values : ndarray or CSR of shape (n, d)
        Their scores or latents.
    W_dec, b_dec : ndarray of shapes (d, d_in), (d_in,)
    order : ndarray of shape (d,)
        Features in the order in which they are kept, judged on other galaxies: PCA by number, SAE latents by frequency
        or as Matryoshka groups have them.
    fill : ndarray of shape (d,)
        Train means, so that features left out cost their variance alone, as those of PCA (means 0) do; zeros give what
        a Matryoshka prefix is trained for.

    Returns
    -------
    DataFrame
        `n_components` (features kept, 1, 2, 4, ... and all of `order`), `l0` (mean number of kept features that are
        active a galaxy), `explained_variance` (share; below 0 where worse than the column means).

    Raises
    ------
    ValueError
        If shapes do not fit or a value is not finite.
    """
    x, table = np.asarray(checked_table(embedding, "embedding")), checked_table(values, "values")
    n, d = table.shape
    if len(x) != n or W_dec.shape != (d, x.shape[1]) or b_dec.shape != (x.shape[1],) or fill.shape != (d,):
        raise ValueError(
            f"embedding {x.shape}, values {table.shape}, W_dec {W_dec.shape}, b_dec {b_dec.shape}, "
            f"fill {fill.shape} do not fit together"
        )
    sizes = doubling(len(order))
    steps = [order[low:high] for low, high in zip([0, *sizes], sizes, strict=False)]

    constant = b_dec + fill @ W_dec

    def reconstructions() -> Iterator[tuple[NDArray[np.floating], NDArray[np.float64]]]:
        n_rows = max(1, BLOCK_VALUES // (len(sizes) * x.shape[1]))
        for start in range(0, n, n_rows):
            block = table[start : start + n_rows]
            added = [(block[:, step] @ W_dec[step]).astype(np.float64) - fill[step] @ W_dec[step] for step in steps]
            yield x[start : start + n_rows], np.cumsum(np.stack(added, axis=1), axis=1) + constant

    fvu = fvu_of_blocks(reconstructions())
    n_active = np.cumsum(activation_frequency(values)[order])
    return pd.DataFrame({"n_components": sizes, "l0": n_active[np.array(sizes) - 1], "explained_variance": 1 - fvu})


def doubling(n: int) -> list[int]:
    """1, 2, 4, ... below n, and n itself; none for 0."""
    return [1 << i for i in range(max(0, n - 1).bit_length())] + [n] if n else []


def _resampled_rmse(
    squared_errors: NDArray[np.float64], n_resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Low and high end of the 95 % percentile interval of the RMSE of each column, galaxies drawn with replacement."""
    n = len(squared_errors)
    resampled = [counts @ squared_errors for counts in resample_counts(n, n_resamples, seed)]
    low, high = np.quantile(np.sqrt(np.array(resampled) / n), (0.025, 0.975), axis=0)
    return low, high
