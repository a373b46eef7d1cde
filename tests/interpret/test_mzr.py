"""The mass-metallicity relation of predictions."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from sfnetlab.interpret.mzr import (
    median_relation,
    metallicity_from_mass,
    predicted_relations,
    relation_bins,
    residual_trends,
    tremonti_metallicity,
)
from sfnetlab.metrics.regression import nmad
from sfnetlab.surveys.lines import tremonti_2004


def galaxies(n=3000, scatter=0.1, seed=0):
    rng = np.random.default_rng(seed)
    mass = rng.uniform(8.8, 11.0, n)
    return mass, tremonti_metallicity(mass) + scatter * rng.normal(size=n)


def test_the_median_relation_of_galaxies_that_follow_tremonti_is_tremonti():
    relation = median_relation(*galaxies())
    mass = np.linspace(9.0, 10.8, 20)
    np.testing.assert_allclose(relation(mass), tremonti_2004(mass), atol=0.03)


def test_beyond_its_masses_a_relation_is_constant():
    relation = median_relation(*galaxies())
    assert relation(np.array([5.0]))[0] == relation.metallicity[0]
    np.testing.assert_array_equal(tremonti_metallicity(np.array([3.0, 20.0])), tremonti_2004([8.5, 11.5]))


def test_scatter_in_bins_is_that_of_the_galaxies_in_them():
    mass, metallicity = galaxies()
    bins = relation_bins(mass, metallicity, n_resamples=100, seed=0)
    row = bins.iloc[5]
    own = metallicity[np.abs(mass - row["log_mass"]) < 0.1]
    assert row["n"] == len(own)
    assert row["nmad"] == pytest.approx(nmad(np.zeros(len(own)), own))
    assert row["nmad_low"] < row["nmad"] < row["nmad_high"]
    assert bins["n"].sum() >= 0.98 * len(mass)


def test_a_bin_of_few_galaxies_is_left_out():
    mass, metallicity = galaxies()
    mass[0] = 7.0
    assert relation_bins(mass, metallicity, n_resamples=100, seed=0)["log_mass"].min() > 8.5


def test_residuals_that_fall_with_star_formation_show_it():
    mass, metallicity = galaxies()
    rng = np.random.default_rng(1)
    sfr = rng.normal(size=len(mass))
    metallicity = metallicity - 0.1 * sfr
    residual = metallicity - median_relation(mass, metallicity)(mass)
    quantities = {"sfr": sfr, "noise": np.where(mass < 9, np.nan, rng.normal(size=len(mass)))}
    table = residual_trends(residual, quantities, n_resamples=200, seed=0).set_index("quantity")
    assert table.loc["sfr", "rho"] == pytest.approx(spearmanr(residual, sfr).statistic)
    assert table.loc["sfr", "high"] < -0.5
    assert table.loc["noise", "low"] < 0 < table.loc["noise", "high"]
    assert table.loc["noise", "n"] == (mass >= 9).sum()


def test_masses_that_are_not_finite_are_refused():
    mass, metallicity = galaxies(20)
    mass[3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        median_relation(mass, metallicity)


def test_without_a_full_bin_of_mass_there_are_no_bins():
    mass = np.linspace(8.5, 11.4, 50)  # four galaxies in 0.2 dex
    assert relation_bins(mass, np.full(50, 8.9), n_resamples=100, seed=0).empty


@pytest.fixture
def known():
    rng = np.random.default_rng(0)
    mass = rng.uniform(9, 11, 240)
    metallicity = 8.9 + 0.2 * (mass - 10) + 0.02 * rng.normal(size=240)
    columns = {"id_str": [f"g{i:03d}" for i in range(240)], "split": np.repeat(["train", "valid", "test"], 80)}
    measured = {"lgm_tot_p50": mass, "oh_p50": metallicity, "sfr_tot_p50": mass - 10 + rng.normal(size=240)}
    return pd.DataFrame(columns | measured)


@pytest.fixture
def predictions(known):
    """Test predictions of two seeds whose heads err by +0.1 and -0.1 dex."""
    test = known[known["split"] == "test"]
    about = {"features": "net", "kind": "sfnet", "k": 4, "probe": "head", "n_features_used": 9, "family": "net k=4"}
    rows = [
        test[["id_str"]].assign(column=column, y_pred=test[column] + error, seed=seed, training=seed, **about)
        for seed, error in ((0, 0.1), (1, -0.1))
        for column in ("lgm_tot_p50", "oh_p50")
    ]
    return pd.concat(rows).astype({"k": "Int64", "seed": "Int64", "training": "Int64"})


def test_metallicity_from_predicted_mass_errs_by_the_slope_times_the_error_of_the_mass(known, predictions):
    scores, predicted = metallicity_from_mass(known, predictions, n_resamples=100, seed=0)
    rows, told = pd.concat(scores), pd.concat(predicted)
    errors = (told["y_pred"] - told["y_true"]).groupby([told["probe"], told["seed"]]).mean()
    biases = rows[rows["metric"] == "bias"].set_index(["probe", "seed"])["value"]
    pd.testing.assert_series_equal(errors.sort_index(), biases.sort_index(), check_names=False)
    assert set(rows["probe"]) == {"head_mass_fitted_relation", "head_mass_tremonti_2004"}
    bias = rows[(rows["metric"] == "bias") & (rows["probe"] == "head_mass_fitted_relation")].set_index("seed")["value"]
    assert bias[0] - bias[1] == pytest.approx(2 * 0.2 * 0.1, rel=0.3)


def test_the_relation_of_each_head_stands_beside_the_true_one(known, predictions):
    tables = predicted_relations(known, predictions, n_resamples=100, seed=0)
    assert set(tables["mass_metallicity_bins"]["features"]) == {"true", "net"}
    assert set(tables["mass_metallicity_residuals"]["quantity"]) == {"log SFR", "log sSFR"}


def test_too_few_galaxies_have_no_relation(known, predictions):
    few = known[known["id_str"] < "g190"]
    shown = predictions[predictions["id_str"] < "g190"]
    assert predicted_relations(few, shown, n_resamples=100, seed=0) == {}
