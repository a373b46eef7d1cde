"""Recovery of factors: perfect, rotated and missing factors score as they must; numbers equal scikit-learn."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import ortho_group
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from sfnetlab.interpret.recovery import (
    ALL_FACTORS,
    COLUMNS,
    FAMILY,
    factor_table,
    family_absorption,
    family_labels,
    recover_factors,
)
from sfnetlab.metrics.selection import select_forward
from sfnetlab.surveys.mock_population import make_population

FIT, TEST = slice(0, 300), slice(300, 500)


def factors_of(m: int = 4) -> pd.DataFrame:
    values = np.random.default_rng(0).uniform(-1, 1, (500, m))
    return pd.DataFrame(values, columns=[f"factor{i}" for i in range(m)])


def recovered(values, factors: pd.DataFrame, **changed) -> pd.DataFrame:
    arguments = {"ks": (1, 2), "n_bootstrap": 100, "seed": 0} | changed
    return recover_factors(values[FIT], factors[FIT], values[TEST], factors[TEST], **arguments)


def value(table: pd.DataFrame, metric: str, factor: str = ALL_FACTORS, k: int | None = None) -> float:
    rows = table[(table["metric"] == metric) & (table["factor"] == factor)]
    (number,) = rows.loc[rows["k"] == k if k else rows["k"].isna(), "value"]
    return number


def test_factors_themselves_score_one():
    factors = factors_of()
    table = recovered(sp.csr_array(factors.to_numpy()[:, ::-1]), factors)
    assert list(table.columns) == list(COLUMNS)
    np.testing.assert_allclose(table.loc[table["metric"] != "r2", "value"], 1, atol=0.01)
    np.testing.assert_allclose(table.loc[table["metric"] == "r2", "value"], 1)
    assert table.loc[(table["metric"] == "correlation") & (table["factor"] == "factor0"), "feature"].item() == 3


def test_rotation_is_informative_but_not_disentangled():
    factors = factors_of(8)
    table = recovered(factors.to_numpy() @ ortho_group.rvs(8, random_state=1), factors, ks=(1, 8))
    assert value(table, "informativeness") > 0.98
    assert value(table, "r2", k=8) == pytest.approx(1)
    assert value(table, "r2", k=1) < 0.75
    assert value(table, "correlation") < 0.8
    assert value(table, "disentanglement") < 0.5


def test_r2_of_k_features_is_that_of_sklearn_on_the_same_features():
    rng = np.random.default_rng(2)
    factors = factors_of()
    X = factors.to_numpy() @ rng.standard_normal((4, 10)) + rng.standard_normal((500, 10))
    table = recovered(X, factors, ks=(1, 3))
    y = factors["factor2"].to_numpy()
    for k in (1, 3):
        chosen = select_forward(X[FIT], y[FIT, None], k)
        model = LinearRegression().fit(X[FIT][:, chosen], y[FIT])
        expected = r2_score(y[TEST], model.predict(X[TEST][:, chosen]))
        assert value(table, "r2", "factor2", k) == pytest.approx(expected)


def test_scores_of_all_are_means_over_factors_within_their_intervals():
    factors = factors_of()
    X = factors.to_numpy() + np.random.default_rng(3).standard_normal((500, 4))
    table = recovered(X, factors)
    for _, own in table[table["low"].notna()].groupby(["metric", "k"], dropna=False):
        is_all = own["factor"] == ALL_FACTORS
        assert own.loc[is_all, "value"].item() == pytest.approx(own.loc[~is_all, "value"].mean())
        assert ((own["low"] < own["value"]) & (own["value"] < own["high"])).all()
        widths = own["high"] - own["low"]
        assert widths[is_all].item() < widths[~is_all].mean()


def test_interval_of_a_correlation_covers_the_truth():
    rng = np.random.default_rng(4)
    covered = []
    for seed in range(35):
        y = rng.standard_normal((260, 2))
        X = 0.6 * y + 0.8 * rng.standard_normal((260, 2))
        frames = [pd.DataFrame(part, columns=["a", "b"]) for part in (y[:60], y[60:])]
        table = recover_factors(X[:60], frames[0], X[60:], frames[1], (1,), n_bootstrap=100, seed=seed)
        own = table[(table["metric"] == "correlation") & (table["factor"] != ALL_FACTORS)]
        covered += ((own["low"] <= 0.6) & (own["high"] >= 0.6)).tolist()
    assert 0.88 <= np.mean(covered) <= 0.99


def test_more_features_than_there_are_is_not_measured():
    table = recovered(factors_of().to_numpy()[:, :2], factors_of(), ks=(1, 5))
    own = table[(table["metric"] == "r2") & (table["k"] == 5)]
    assert len(own) == 4
    assert own["value"].isna().all()


def test_silent_features_recover_nothing():
    table = recovered(np.zeros((500, 3)), factors_of())
    np.testing.assert_allclose(table.loc[table["metric"] == "correlation", "value"], 0)
    assert table.loc[table["metric"] == "r2", "value"].max() <= 0
    assert np.isnan(value(table, "disentanglement"))


def test_mock_factors_become_numbers_whose_differences_mean_something():
    catalog = make_population(400, 0, 38.0)
    table = factor_table(catalog)
    assert not {"type", "position_angle_deg", "companion_angle_deg"} & set(table.columns)
    assert {"is_merger", "position_angle_cos", "position_angle_sin", "clump_strength"} <= set(table.columns)
    np.testing.assert_array_equal(table["is_merger"], catalog["factor_type"] == 3)
    angle = np.arctan2(table["position_angle_sin"], table["position_angle_cos"])
    np.testing.assert_allclose(np.degrees(angle) % 360 / 2, catalog["factor_position_angle_deg"])
    assert np.isfinite(table.to_numpy()).all()


def test_constant_factors_are_left_out_and_one_factor_is_refused():
    factors = factors_of().assign(factor1=3.0)
    assert "factor1" not in set(recovered(factors_of().to_numpy(), factors)["factor"])
    with pytest.raises(ValueError, match="two factors"):
        recovered(factors_of().to_numpy(), factors[["factor0", "factor1"]])


# --- general and special labels ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labels() -> pd.DataFrame:
    return family_labels(make_population(2000, 0, 38.0))


def test_a_special_label_implies_the_general_one(labels):
    for name, above in FAMILY.items():
        assert 0.01 < labels[name].mean() < 0.99
        if above is not None:
            assert not (labels[name] & ~labels[above]).any()


def test_a_bar_that_silences_the_disc_is_found_by_name(labels):
    """Feature 0 is the disc where there is no bar, feature 1 the bar, the others noise."""
    values = np.random.default_rng(0).random((len(labels), 6)) < 0.05
    values[:, 0] = labels["disc"] & ~labels["barred"]
    values[:, 1] = labels["barred"]
    table = sp.csr_array(values.astype(float))
    found = family_absorption(table[:1200], labels[:1200], table[1200:], labels[1200:]).set_index("child")
    assert set(found["parent"]) == {"disc", "armed"}
    assert found.loc["barred", "parent"] == "disc"
    assert found.loc["barred", "absorption"] == 1
    assert (found.loc["barred", "feature_parent"], found.loc["barred", "feature_child"]) == (0, 1)


def test_labels_that_no_galaxy_has_are_left_out_with_those_below_them(labels):
    changed = labels.assign(armed=False, two_armed=False)
    table = sp.csr_array(np.random.default_rng(0).random((len(labels), 4)) < 0.3, dtype=float)
    found = family_absorption(table[:1200], changed[:1200], table[1200:], changed[1200:])
    assert set(found["child"]) == {"barred", "edge_on", "merger"}


def test_a_survey_without_discs_has_nothing_to_absorb(labels):
    changed = labels & False
    table = sp.csr_array(np.ones((len(labels), 2)))
    assert family_absorption(table[:1200], changed[:1200], table[1200:], changed[1200:]).empty
