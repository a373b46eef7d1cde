"""Ablation and explained variance against slow loops."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sfnetlab.interpret.ablation import ablate_features, doubling, explained_variance
from sfnetlab.metrics.bootstrap import bootstrap_intervals
from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained

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


@pytest.mark.parametrize("as_table", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("fill", [np.zeros(6), VALUES[:200].mean(axis=0)])
def test_explained_variance_is_one_minus_the_fvu_of_the_kept_features(as_table, fill, monkeypatch):
    monkeypatch.setattr("sfnetlab.interpret.ablation.BLOCK_VALUES", 1000)
    atoms, b_dec = RNG.normal(size=(6, 8)), RNG.normal(size=8)
    x = VALUES @ atoms + b_dec + 0.1 * RNG.normal(size=(300, 8))
    table = explained_variance(x, as_table(VALUES), atoms, b_dec, ORDER, fill)
    assert table["n_components"].tolist() == [1, 2, 4, 6]
    for row in table.itertuples():
        kept = ORDER[: row.n_components]
        values = np.tile(fill, (300, 1))
        values[:, kept] = VALUES[:, kept]
        fvu = fraction_of_variance_unexplained(x, values @ atoms + b_dec)
        assert row.explained_variance == pytest.approx(1 - fvu)
        assert row.l0 == pytest.approx(np.count_nonzero(VALUES[:, kept]) / 300)


def test_of_principal_components_it_is_the_sum_of_their_shares():
    x = RNG.normal(size=(50, 5)) * [5, 4, 3, 2, 1]
    mean = x.mean(axis=0)
    _, s, components = np.linalg.svd(x - mean, full_matrices=False)
    table = explained_variance(x, (x - mean) @ components.T, components, mean, np.arange(5), np.zeros(5))
    share = np.cumsum(s**2) / np.sum(s**2)
    np.testing.assert_allclose(table["explained_variance"], share[table["n_components"] - 1])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit together"):
        explained_variance(np.ones((3, 2)), np.ones((3, 4)), np.ones((4, 2)), np.ones(3), np.arange(4), np.zeros(4))


@pytest.mark.parametrize(("n", "sizes"), [(0, []), (1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8])])
def test_doubling(n, sizes):
    assert doubling(n) == sizes
