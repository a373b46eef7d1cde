"""The catalogue of features against slow loops."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import pearsonr, spearmanr

from sfnetlab.interpret import table
from sfnetlab.interpret.catalog import associate_features, describe_features, strongest_galaxies, summarise_usage


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


def test_a_feature_that_is_never_positive_has_examples_too(values):
    table = strongest_galaxies(-values, np.array([4]), 3)
    expected = np.argsort(values[:, 4], kind="stable")[:3]
    assert table["row"].tolist() == expected.tolist()
    np.testing.assert_array_equal(table["activation"], -values[expected, 4])


def test_a_galaxy_without_the_feature_is_never_its_example(values):
    table = strongest_galaxies(values, np.array([2]), 100)
    assert sorted(table["row"]) == list(range(10))


def test_quantiles_are_of_the_galaxies_in_which_the_feature_is_active(values):
    table = describe_features(values, pd.DataFrame({"x": np.arange(40.0)}), {}, "Z").set_index("feature")
    for feature, n in ((0, 20), (2, 10), (4, 40)):
        expected = np.quantile(values[:n, feature], (0.5, 0.9, 0.99))
        np.testing.assert_allclose(
            table.loc[feature, ["activation_q50", "activation_q90", "activation_q99"]].astype(float),
            expected,
            rtol=1e-6,
        )
    assert table["name"].tolist() == ["Z4", "Z0", "Z2"]
    assert table["usage_rank"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("as_table", [np.asarray, sparse.csr_array])
def test_shares_of_the_predictions_variance_are_its_covariances_and_sum_to_one(values, as_table):
    weight = np.array([1.0, 5, -2, 3, 0.5])
    table = describe_features(as_table(values), pd.DataFrame({"x": np.arange(40.0)}), {"y": weight}).set_index(
        "feature"
    )
    prediction = values @ weight
    for feature in (0, 2, 4):
        expected = np.cov(weight[feature] * values[:, feature], prediction)[0, 1] / prediction.var(ddof=1)
        assert table.loc[feature, "variance_share_y"] == pytest.approx(expected)
    assert table["variance_share_y"].sum() == pytest.approx(1)


def test_a_head_that_predicts_one_value_has_no_shares(values):
    table = describe_features(values, pd.DataFrame({"x": np.arange(40.0)}), {"y": np.zeros(5)})
    assert table["variance_share_y"].isna().all()


def test_redundancy_names_the_other_feature(values):
    values = values.copy()
    values[:, 1] = 3 * values[:, 4]
    table = describe_features(values, pd.DataFrame({"x": np.arange(40.0)}), {}).set_index("feature")
    assert table.loc[1, "redundancy"] == pytest.approx(1)
    assert (table.loc[1, "redundant_with"], table.loc[4, "redundant_with"]) == (4, 1)
    expected = np.corrcoef(values[:, [0, 1, 2, 4]].T)[0, 1:]
    assert table.loc[0, "redundancy"] == pytest.approx(expected[np.abs(expected).argmax()], abs=1e-6)


def test_a_feature_alone_is_redundant_with_none(values):
    table = describe_features(values[:, :2], pd.DataFrame({"x": np.arange(40.0)}), {})
    assert table["redundant_with"].tolist() == [-1]
    assert table["redundancy"].isna().all()


@pytest.mark.parametrize("as_table", [np.asarray, sparse.csr_array])
def test_associations_are_scipys_over_the_galaxies_that_have_the_label(values, as_table):
    rng = np.random.default_rng(0)
    labels = pd.DataFrame({"a": rng.normal(size=40) + values[:, 4], "b": rng.normal(size=40)})
    labels.loc[:4, "b"] = np.nan
    table = associate_features(as_table(values), labels)
    assert len(table) == 10
    for row in table.itertuples():
        known = labels[row.label].notna().to_numpy()
        assert row.n == known.sum()
        own, label = values[known, row.feature], labels[row.label][known]
        if row.feature in (1, 3):
            assert np.isnan([row.pearson, row.spearman, row.p, row.q]).all()
            continue
        assert row.pearson == pytest.approx(pearsonr(own, label).statistic, abs=1e-6)
        assert (row.spearman, row.p) == pytest.approx(tuple(spearmanr(own, label)))
        assert row.pearson_low < row.pearson < row.pearson_high
        assert row.spearman_low < row.spearman < row.spearman_high
        assert row.p <= row.q <= 1


def test_usage_counts_the_living_the_dead_and_the_common(values):
    rare = np.zeros((1000, 5))
    rare[:40] = values
    usage = summarise_usage(sparse.csr_array(rare))
    assert [usage[name] for name in ("n_features", "n_alive", "n_dead", "n_common")] == [5, 3, 2, 2]
    assert usage["effective_number"] == pytest.approx(np.exp(usage["usage_entropy"]))


def test_a_large_survey_is_described_on_galaxies_spread_evenly_over_it(described, monkeypatch, caplog):
    labels = pd.DataFrame({"size": np.arange(120.0)})
    monkeypatch.setattr(table, "MAX_ROWS", 10)
    with caplog.at_level("INFO"):
        part = described(labels, np.ones((120, 2))).test
    assert part.labels["size"].tolist() == np.arange(2.0, 120, 12).tolist()
    assert len(part.values) == 10
    assert "10 of 40 test galaxies, spread evenly over the catalogue, stand for all" in caplog.text
