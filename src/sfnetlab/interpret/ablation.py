"""How many features a network's head needs: its error with only some of them kept."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.table import NOTHING, SEED, Answer, DescribedTable
from sfnetlab.metrics.bootstrap import resample_counts
from sfnetlab.metrics.regression import rmse
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import FeatureMatrix, checked_labels, checked_table, column_mean_sd


def ask(table: DescribedTable) -> Answer:
    """Return the table `ablation`; nothing where there is no head."""
    if table.head is None:
        return NOTHING
    weights, bias = table.head
    labels = table.test.rows[list(table.head_columns)]
    ablation = ablate_features(table.train.values, table.test.values, labels, weights.T, bias, seed=SEED)
    return Answer(tables={"ablation": ablation})


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
    """Return the RMSE on test galaxies of a given linear head that sees only the most frequent features.

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
        The head's, in label units.
    min_galaxies : sequence of int
        Numbers of train galaxies: the rule "min_galaxies" keeps the features active in at least so many.
    n_resamples, seed
        Resamples of the galaxies for the intervals, and their seed; the same galaxies are drawn for every row of the
        table.

    Returns
    -------
    DataFrame
        `rule` ("most_frequent" or "min_galaxies"), `threshold` (the number of features or galaxies of the rule),
        `n_kept` (features kept), `fill` ("zero" or "train_mean"), `column`, `rmse`, `low`, `high` (95 %, percentile),
        `n` (galaxies). The rule "most_frequent" keeps 1, 2, 4, ... and all features active on train; of equally
        frequent ones the lower number comes first.

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
            kept_weights, left = weights.copy(), order[n_kept:]
            kept_weights[left] = 0
            constant = bias if fill == "zero" else bias + mean[left] @ weights[left]
            predicted = table @ kept_weights + constant
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


def doubling(n: int) -> list[int]:
    """Return 1, 2, 4, ... below n, and n itself; nothing for 0."""
    return [1 << i for i in range(max(0, n - 1).bit_length())] + [n] if n else []


def _resampled_rmse(
    squared_errors: NDArray[np.float64], n_resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Low and high end of the 95 % percentile interval of the RMSE of each column, galaxies drawn with replacement."""
    n = len(squared_errors)
    resampled = [counts @ squared_errors for counts in resample_counts(n, n_resamples, seed)]
    low, high = np.quantile(np.sqrt(np.array(resampled) / n), (0.025, 0.975), axis=0)
    return low, high
