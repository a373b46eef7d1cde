"""Ablation against a slow loop."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sfnetlab.interpret.ablation import ablate_features, doubling
from sfnetlab.metrics.bootstrap import bootstrap_intervals

RNG = np.random.default_rng(0)
VALUES = np.where(RNG.random((300, 6)) < [0.9, 0.05, 0.5, 0.7, 0, 0.3], RNG.gamma(2, size=(300, 6)), 0)
WEIGHTS, BIAS = RNG.normal(size=(6, 2)), np.array([8.0, -1.0])
LABELS = pd.DataFrame(VALUES[200:] @ WEIGHTS + BIAS + RNG.normal(size=(100, 2)), columns=["a", "b"])
ORDER = np.argsort(-np.count_nonzero(VALUES[:200], axis=0), kind="stable")


def ablate(as_table=np.asarray, **changes):
    settings = {"min_galaxies": (1, 50, 1000), "n_resamples": 200, "seed": 3, **changes}
    return ablate_features(as_table(VALUES[:200]), as_table(VALUES[200:]), LABELS, WEIGHTS, BIAS, **settings)


@pytest.mark.parametrize("as_table", [np.asarray, sparse.csr_array])
def test_every_error_is_that_of_the_head_on_the_kept_features(as_table):
    table = ablate(as_table)
    assert table.loc[table["rule"] == "most_frequent", "n_kept"].unique().tolist() == [1, 2, 4, 5]
    for row in table.itertuples():
        if row.rule == "min_galaxies":
            assert row.n_kept == np.sum(np.count_nonzero(VALUES[:200], axis=0) >= row.threshold)
        values = VALUES[200:].copy()
        left = ORDER[row.n_kept :]
        values[:, left] = 0 if row.fill == "zero" else VALUES[:200, left].mean(axis=0)
        j = list(LABELS).index(row.column)
        error = values @ WEIGHTS[:, j] + BIAS[j] - LABELS[row.column]
        assert row.rmse == pytest.approx(np.sqrt(np.mean(error**2)))
        assert row.low < row.rmse < row.high


def test_the_interval_is_that_of_the_common_bootstrap():
    table = ablate().query("rule == 'most_frequent' and n_kept == 5 and fill == 'zero'")
    expected = bootstrap_intervals(LABELS.to_numpy(), VALUES[200:] @ WEIGHTS + BIAS, n_resamples=200, seed=3)
    for row, interval in zip(table.itertuples(), [i for i in expected if i.metric == "rmse"], strict=True):
        assert (row.low, row.high) == pytest.approx((interval.low, interval.high))


def test_a_head_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"weights \(6, 2\) and bias \(2,\)"):
        ablate_features(VALUES[:200], VALUES[200:], LABELS, WEIGHTS.T, BIAS)


@pytest.mark.parametrize(("n", "sizes"), [(0, []), (1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8])])
def test_doubling(n, sizes):
    assert doubling(n) == sizes
