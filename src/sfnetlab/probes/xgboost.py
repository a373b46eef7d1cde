"""The probe "xgboost": boosted trees."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics.tables import FeatureMatrix, Mapped, Table, checked_table, column_mean_sd, in_memory, row_slices
from sfnetlab.probes.common import checked_rows, require_columns

MAX_ROUNDS = 500
STOP_AFTER_ROUNDS = 20
TREES = {
    "objective": "reg:squarederror",
    "tree_method": "hist",
    "learning_rate": 0.1,
    "max_depth": 5,
    "max_bin": 64,
    "min_child_weight": 5,
    "subsample": 0.8,
}


class XGBoostProbe:
    """Boosted trees, one ensemble a label column, stopped where the valid rows no longer gain.

    A value of zero is XGBoost's "missing", in dense and CSR tables alike: how a table is stored changes nothing, and
    sparse ones stay sparse. The same seed, number of threads and machine give the same trees.
    """

    n_rounds_: list[int]
    """Trees in use for each label column."""

    def __init__(self, *, seed: int, n_threads: int) -> None:
        self.seed = seed
        self.n_threads = n_threads

    def fit(
        self, X: FeatureMatrix, Y: NDArray[np.floating], X_valid: FeatureMatrix, Y_valid: NDArray[np.floating]
    ) -> Self:
        """See `Probe.fit`."""
        import xgboost

        table, labels, valid_table, valid_labels = checked_rows(X, Y, X_valid, Y_valid)
        # XGBoost computes in float32: standardised labels lose nothing, whatever their unit
        self._mean, self._sd = labels.mean(axis=0), labels.std(axis=0)
        self._n_columns = table.shape[1]
        self._boosters: list[xgboost.Booster] = []
        self.n_rounds_ = []
        if np.all(column_mean_sd(table)[1] == 0):
            return self
        unit = np.where(self._sd > 0, self._sd, 1)
        storage = {"missing": 0.0, "max_bin": TREES["max_bin"], "nthread": self.n_threads}
        train = xgboost.QuantileDMatrix(in_memory(table), **storage)
        valid = xgboost.QuantileDMatrix(in_memory(valid_table), **storage, ref=train)
        for column in range(labels.shape[1]):
            train.set_label((labels[:, column] - self._mean[column]) / unit[column])
            valid.set_label((valid_labels[:, column] - self._mean[column]) / unit[column])
            booster = xgboost.train(
                {**TREES, "seed": self.seed, "nthread": self.n_threads},
                train,
                num_boost_round=MAX_ROUNDS,
                evals=[(valid, "valid")],
                early_stopping_rounds=STOP_AFTER_ROUNDS,
                verbose_eval=False,
            )
            self.n_rounds_.append(booster.best_iteration + 1)
            self._boosters.append(booster)
        return self

    def predict(self, X: FeatureMatrix) -> NDArray[np.float64]:
        """See `Probe.predict`."""
        table = checked_table(X)
        require_columns(table, self._n_columns)
        if not self._boosters:
            return np.tile(self._mean, (table.shape[0], 1))
        parts = [table] if not isinstance(table, Mapped) else (table[rows] for rows in row_slices(table.shape))
        return np.concatenate([self._predicted(part) for part in parts])

    def _predicted(self, table: Table) -> NDArray[np.float64]:
        import xgboost

        rows = xgboost.DMatrix(table, missing=0.0, nthread=self.n_threads)
        columns = [
            booster.predict(rows, iteration_range=(0, n_rounds))
            for booster, n_rounds in zip(self._boosters, self.n_rounds_, strict=True)
        ]
        return np.stack(columns, axis=1).astype(np.float64) * self._sd + self._mean
