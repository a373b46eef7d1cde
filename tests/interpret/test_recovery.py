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
    ask,
    factor_table,
    factors_apart,
    family_absorption,
    family_labels,
    recover_draws,
    recover_factors,
)
from sfnetlab.metrics.selection import select_forward
from sfnetlab.settings import Target
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


# --- equal numbers, unique factors, nulls -----------------------------------------------------------------------------


def drawn(values, factors: pd.DataFrame, **changed) -> pd.DataFrame:
    arguments = {"n_bootstrap": 60, "seed": 0} | changed
    return recover_draws(values[FIT], factors[FIT], values[TEST], factors[TEST], **arguments)


def test_a_table_repeated_many_times_scores_no_better_at_equal_numbers():
    """MCC of all features rises with their number; that of 16 drawn from 20 and from 300 alike does not."""
    factors, rng = factors_of(), np.random.default_rng(6)
    weights = rng.standard_normal((4, 300))
    many = factors.to_numpy() @ weights + 2 * rng.standard_normal((500, 300))
    few = many[:, :20]
    every = [value(recovered(X, factors), "correlation") for X in (few, many)]
    assert every[1] > every[0] + 0.05
    at_equal = [drawn(X, factors).set_index(["metric", "n_drawn"])["value"] for X in (few, many)]
    assert at_equal[0]["correlation", 16] == pytest.approx(at_equal[1]["correlation", 16], abs=0.08)
    assert at_equal[1]["correlation", 256] > at_equal[1]["correlation", 16] + 0.05
    assert set(at_equal[0].index.get_level_values("n_drawn")) == {4, 16}
    assert set(at_equal[1].index.get_level_values("n_drawn")) == {4, 16, 64, 256}


def test_scores_of_draws_are_those_of_the_table_where_a_draw_is_all_of_it():
    factors = factors_of()
    X = factors.to_numpy() @ np.random.default_rng(1).standard_normal((4, 16)) + np.random.default_rng(2).normal(
        size=(500, 16)
    )
    every = recovered(X, factors)
    of_draws = drawn(X, factors).query("n_drawn == 16").set_index("metric")
    assert of_draws.loc["correlation", "value"] == pytest.approx(value(every, "correlation"))
    assert of_draws.loc["r2", "value"] == pytest.approx(value(every, "r2", k=1))
    assert (of_draws["low"] < of_draws["value"]).all()
    assert (of_draws["value"] < of_draws["high"]).all()
    sparse_one = drawn(sp.csr_array(X), factors).query("n_drawn == 16").set_index("metric")
    np.testing.assert_allclose(sparse_one["value"], of_draws["value"])


def test_the_interval_of_draws_is_wider_where_draws_differ():
    factors, rng = factors_of(), np.random.default_rng(6)
    alike = factors.to_numpy() @ rng.standard_normal((4, 64)) + rng.standard_normal((500, 64))
    rare = np.where(np.arange(64) < 6, alike, rng.standard_normal((500, 64)))
    at_16 = [drawn(X, factors).query("n_drawn == 16 and metric == 'correlation'") for X in (alike, rare)]
    widths = [(rows["high"] - rows["low"]).item() for rows in at_16]
    assert widths[1] > 1.5 * widths[0]


def test_repeated_factors_and_angles_that_training_turns_are_apart():
    apart = factors_apart(factor_table(make_population(1500, 0, 38.0)))
    assert apart["disc_scale_arcsec"] == "repeats effective_radius_arcsec"
    assert apart["bulge_sersic_n"] == "repeats is_elliptical"
    assert apart["clump_strength"] == "repeats n_clumps"
    turned = {name for name, reason in apart.items() if reason == "removed by augmentation"}
    assert turned == {"position_angle_cos", "position_angle_sin", "companion_angle_cos", "companion_angle_sin"}
    assert not {"is_elliptical", "effective_radius_arcsec", "n_clumps", "axis_ratio", "dust"} & set(apart)


def test_a_factor_that_repeats_another_changes_no_score_of_all():
    factors = factors_of()
    X = factors.to_numpy() @ np.random.default_rng(3).standard_normal((4, 12)) + 0.5 * np.random.default_rng(4).normal(
        size=(500, 12)
    )
    twice = factors.assign(again=factors["factor0"] * 2 + 1)
    apart = factors_apart(twice)
    assert apart == {"again": "repeats factor0"}
    once, found = recovered(X, factors), recovered(X, twice, apart=apart)
    of_all = (
        table[table["factor"] == ALL_FACTORS].fillna({"k": 0}).set_index(["metric", "k"]) for table in (found, once)
    )
    left, right = (table["value"].sort_index() for table in of_all)
    pd.testing.assert_series_equal(left, right)
    own = found[found["factor"] == "again"]
    assert set(own["apart"]) == {"repeats factor0"}
    assert set(own["metric"]) == {"r2", "informativeness"}


def asked(described, values, kind="encoder", **more):
    n = len(values)
    population = make_population(n, 0, 38.0)
    settings = {"has_factors": True, "targets": {}, "within": {}} | more
    return ask(described(population.drop(columns="id_str"), values, kind, **settings)).tables["recovery"]


def test_every_score_stands_beside_an_untrained_network_and_permuted_galaxies(described):
    population, rng = make_population(600, 0, 38.0), np.random.default_rng(0)
    table = factor_table(population)
    brightness = table[["r_mag", "effective_radius_arcsec"]].to_numpy()
    brightness = (brightness - brightness.mean(axis=0)) / brightness.std(axis=0)
    seen = brightness @ rng.normal(size=(2, 40)) + 0.5 * rng.normal(size=(600, 40))
    ids = pd.Index([f"{i:04d}" for i in range(600)])
    untrained = {"untrained": lambda of: seen[ids.get_indexer(of)]}
    learnt = np.hstack([((table - table.mean()) / table.std()).to_numpy()[:, ::2], seen[:, :3]])
    found = asked(described, learnt, **untrained)
    scores = found[(found["factor"] == ALL_FACTORS) & (found["metric"] != "completeness")]
    assert scores[["permuted", "untrained"]].notna().all(axis=None)
    at_16 = scores[scores["n_drawn"] == 16].set_index("metric")
    assert (at_16["value"] > at_16["untrained"]).all()
    assert at_16.loc["correlation", "permuted"] < 0.15
    np.testing.assert_allclose(found["excess"], found["value"] - found["untrained"])
    itself = asked(described, seen, **untrained)
    np.testing.assert_allclose(itself.loc[itself["n_drawn"].notna(), "excess"], 0, atol=1e-12)
    assert asked(described, learnt)["untrained"].isna().all()


def test_all_tables_are_scored_on_the_same_galaxies_whatever_their_target(described):
    n = 600
    values = np.random.default_rng(0).normal(size=(n, 20))
    cut = {"within": {"size": np.arange(n) % 7 == 0}, "targets": {"size": Target(columns=("oh_p50",))}}
    whole, of_target = (asked(described, values, head_target=head, **cut) for head in (None, "size"))
    pd.testing.assert_frame_equal(whole, of_target)


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
