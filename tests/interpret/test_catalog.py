"""The catalogue of features against slow loops."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import spearmanr

from sfnetlab.interpret.catalog import describe_features, strongest_galaxies


@pytest.fixture
def values() -> np.ndarray:
    """Forty galaxies, five features: two always silent, the others active in a half, a quarter and all of them."""
    rng = np.random.default_rng(0)
    activations = rng.gamma(2.0, size=(40, 5)).astype(np.float32)
    activations[:, [1, 3]] = 0
    activations[20:, 0] = 0
    activations[10:, 2] = 0
    return activations


@pytest.mark.parametrize("as_table", [np.asarray, sparse.csr_array])
def test_features_are_described_by_falling_frequency_without_the_silent(values, as_table):
    labels = pd.DataFrame({"x": np.arange(40.0)})
    table = describe_features(as_table(values), labels, {})
    assert table["feature"].tolist() == [4, 0, 2]
    np.testing.assert_allclose(table["frequency"], [1, 0.5, 0.25])
    np.testing.assert_allclose(
        table["mean_activation"], [values[:, 4].mean(), values[:20, 0].mean(), values[:10, 2].mean()], rtol=1e-5
    )
    np.testing.assert_allclose(table["max_activation"], values.max(axis=0)[[4, 0, 2]])


def test_the_best_label_is_the_one_of_largest_rank_correlation(values):
    rng = np.random.default_rng(1)
    labels = pd.DataFrame({"noise": rng.normal(size=40), "minus": -values[:, 0], "partly": np.nan})
    labels.loc[:19, "partly"] = values[:20, 2]
    table = describe_features(values, labels, {}).set_index("feature")
    assert table.loc[0, "best_label"] == "minus"
    assert table.loc[0, "rho"] == pytest.approx(spearmanr(values[:, 0], labels["minus"]).statistic)
    assert table.loc[2, "rho"] == pytest.approx(1.0)


def test_head_weights_are_those_of_the_feature(values):
    weights = {"oh_p50": np.arange(5.0)}
    table = describe_features(values, pd.DataFrame({"x": np.arange(40.0)}), weights)
    assert table["weight_oh_p50"].tolist() == [4.0, 0.0, 2.0]


def test_the_strongest_galaxies_equal_a_sort(values):
    table = strongest_galaxies(sparse.csr_array(values), np.array([2, 4]), 3)
    for feature, own in table.groupby("feature"):
        expected = np.argsort(-values[:, feature], kind="stable")[:3]
        assert own["row"].tolist() == expected.tolist()
        np.testing.assert_array_equal(own["activation"], values[expected, feature])


def test_a_galaxy_without_the_feature_is_never_its_example(values):
    table = strongest_galaxies(values, np.array([2]), 100)
    assert sorted(table["row"]) == list(range(10))
