"""The mock population obeys the relations it is drawn from, and hides what it promises to hide."""

import numpy as np
import pandas as pd
import pytest
from astropy.cosmology import FlatLambdaCDM
from scipy.stats import spearmanr

from sfnetlab.surveys.catalog import noise_floor
from sfnetlab.surveys.lines import LINES, bpt_class, kauffmann_2003, tremonti_2004
from sfnetlab.surveys.mock_population import luminosity_distance_mpc, make_population

FIELD_ARCSEC = 38.0


@pytest.fixture(scope="module")
def population() -> pd.DataFrame:
    return make_population(6000, 3, FIELD_ARCSEC)


@pytest.fixture(scope="module")
def measured(population: pd.DataFrame) -> pd.DataFrame:
    return population[population["oh_p50"] > 0]


def test_population_is_a_function_of_its_arguments() -> None:
    pd.testing.assert_frame_equal(make_population(50, 7, FIELD_ARCSEC), make_population(50, 7, FIELD_ARCSEC))


@pytest.mark.parametrize("n_galaxies", [30, 31])
def test_first_rows_do_not_depend_on_the_number_of_galaxies(population: pd.DataFrame, n_galaxies: int) -> None:
    pd.testing.assert_frame_equal(make_population(n_galaxies, 3, FIELD_ARCSEC), population.iloc[:n_galaxies])


def test_another_seed_is_another_population() -> None:
    one, other = make_population(50, 0, FIELD_ARCSEC), make_population(50, 1, FIELD_ARCSEC)
    assert not (one["z"] == other["z"]).any()
    assert not set(one["id_str"]) & set(other["id_str"])


def test_ids_are_distinct_strings_of_19_digits(population: pd.DataFrame) -> None:
    assert population["id_str"].is_unique
    assert population["id_str"].str.fullmatch(r"\d{19}").all()


def test_every_number_is_finite_and_every_factor_a_number(population: pd.DataFrame) -> None:
    assert np.isfinite(population.drop(columns="id_str").to_numpy(dtype=float)).all()


def test_magnitudes_and_redshifts_keep_the_survey_limits(population: pd.DataFrame) -> None:
    assert population["z"].between(0.02, 0.1).all()
    assert population["petroMag_r"].between(13.5, 17.77).all()
    assert (population["petroR90_r"] > population["petroR50_r"]).all()


def test_distances_agree_with_astropy() -> None:
    z = np.array([0.02, 0.05, 0.1, 0.3])
    expected = FlatLambdaCDM(H0=70, Om0=0.3).luminosity_distance(z).value
    np.testing.assert_allclose(luminosity_distance_mpc(z), expected, rtol=1e-5)


def test_metallicities_look_like_those_of_sdss(measured: pd.DataFrame) -> None:
    assert measured["oh_p50"].mean() == pytest.approx(8.9, abs=0.03)
    assert measured["oh_p50"].std() == pytest.approx(0.2, abs=0.02)


def test_most_but_not_all_galaxies_pass_the_metallicity_cut(population: pd.DataFrame) -> None:
    passing = (population["oh_p50"] > 0) & (population["lgm_tot_p50"] > 0) & (population["sfr_tot_p50"] > -10)
    assert 0.55 < passing.mean() < 0.75


def test_metallicity_is_invalid_outside_the_star_forming_class(population: pd.DataFrame) -> None:
    star_forming = population["bptclass"] == 1
    assert (population.loc[~star_forming, "oh_p50"] == -9999).all()
    assert (population.loc[star_forming, "oh_p50"] > 7.5).all()


def test_mass_metallicity_relation_is_recovered(measured: pd.DataFrame) -> None:
    for low in (9.0, 9.5, 10.0, 10.5):
        rows = measured[measured["lgm_tot_p50"].between(low, low + 0.25)]
        assert rows["oh_p50"].median() == pytest.approx(float(tremonti_2004(low + 0.125)), abs=0.04)


def test_metallicity_falls_with_star_formation_at_fixed_mass(measured: pd.DataFrame) -> None:
    residual = measured["oh_p50"] - tremonti_2004(np.clip(measured["lgm_tot_p50"], 8.5, 11.5))
    excess = measured["sfr_tot_p50"] - 0.76 * measured["lgm_tot_p50"]
    assert spearmanr(residual, excess).statistic < -0.1


def test_star_formation_obeys_the_demarcations(population: pd.DataFrame) -> None:
    flux = {line: population[f"{line}_flux"] for line in LINES}
    bright = np.logical_and.reduce([flux[line] > 10 * population[f"{line}_flux_err"] for line in LINES])
    nii, h_alpha, oiii, h_beta = (np.log10(flux[line][bright]) for line in LINES)
    kind = population["bptclass"][bright]
    np.testing.assert_array_equal(kind, bpt_class(nii - h_alpha, oiii - h_beta))
    star_forming = population["factor_type"][bright].isin([1, 2]) & (population["factor_agn_fraction"][bright] == 0)
    below = (oiii - h_beta)[star_forming] < kauffmann_2003((nii - h_alpha)[star_forming])
    assert below.mean() > 0.85
    assert {3, 4} <= set(kind)


def test_balmer_lines_are_reddened(population: pd.DataFrame) -> None:
    bright = population["h_beta_flux"] > 20 * population["h_beta_flux_err"]
    decrement = (population["h_alpha_flux"] / population["h_beta_flux"])[bright]
    assert decrement.quantile(0.02) > 2.7
    assert 3.2 < decrement.median() < 5


def test_retired_galaxies_are_ellipticals_of_high_mass(population: pd.DataFrame) -> None:
    elliptical = population["factor_type"] == 0
    mass = population["lgm_tot_p50"]
    assert elliptical[mass > 10.8].mean() > 2 * elliptical[mass < 10].mean()


def test_hidden_scatter_is_independent_of_every_other_column(population: pd.DataFrame) -> None:
    others = population.drop(columns=["id_str", "oh_p50_hidden", "oh_p50"])
    varying = others.loc[:, others.std() > 0]
    rho = np.array([spearmanr(varying[name], population["oh_p50_hidden"]).statistic for name in varying])
    assert np.abs(rho).max() < 4.5 / np.sqrt(len(population))


def test_metallicity_is_what_shows_plus_what_hides(measured: pd.DataFrame) -> None:
    np.testing.assert_allclose(measured["oh_p50"], measured["oh_p50_visible"] + measured["oh_p50_hidden"])
    assert noise_floor(measured, "oh_p50") == pytest.approx(0.06, abs=0.003)
    assert noise_floor(measured, "oh_p50") == pytest.approx(
        np.sqrt(np.mean((measured["oh_p50"] - measured["oh_p50_visible"]) ** 2))
    )


def test_factors_and_photometry_tell_the_metallicity_in_part(measured: pd.DataFrame) -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    factors = measured.filter(like="factor_")
    photometry = measured[[f"modelMag_{band}" for band in "ugriz"] + ["petroR50_r", "petroR90_r"]]
    colours = photometry.iloc[:, :5].diff(axis=1).iloc[:, 1:].add_prefix("colour_")
    n_train = 3000
    ratios = []
    for features in (factors, photometry.join(colours)):
        model = HistGradientBoostingRegressor(max_iter=100, learning_rate=0.08, random_state=0)
        model.fit(features.iloc[:n_train], measured["oh_p50"].iloc[:n_train])
        residual = measured["oh_p50"].iloc[n_train:] - model.predict(features.iloc[n_train:])
        ratios.append(np.sqrt(np.mean(residual**2)) / measured["oh_p50"].iloc[n_train:].std())
    assert 0.38 < ratios[0] < 0.52
    assert 0.52 < ratios[1] < 0.70
    assert ratios[1] - ratios[0] > 0.05


def test_pairs_share_a_cutout_and_are_each_others_companion(population: pd.DataFrame) -> None:
    first, second = population.iloc[0::2].reset_index(), population.iloc[1::2].reset_index()
    north = (second["dec"] - first["dec"]) * 3600
    east = (second["ra"] - first["ra"]) * 3600 * np.cos(np.radians(first["dec"]))
    paired = np.hypot(north, east) < FIELD_ARCSEC / 2
    assert 0.04 < paired.mean() < 0.08
    for here, there, sign in ((first[paired], second[paired], 1), (second[paired], first[paired], -1)):
        angle = np.radians(here["factor_companion_angle_deg"])
        separation = here["factor_companion_separation_arcsec"]
        np.testing.assert_allclose(separation * np.cos(angle), sign * north[paired], atol=0.02)
        np.testing.assert_allclose(separation * np.sin(angle), sign * east[paired], atol=0.02)
        ratio = -2.5 * np.log10(here["factor_companion_flux_ratio"])
        np.testing.assert_allclose(ratio, there["factor_r_mag"] - here["factor_r_mag"])


@pytest.mark.parametrize(("n_galaxies", "field_arcsec"), [(0, 38.0), (10, 0.0)])
def test_impossible_arguments_are_refused(n_galaxies: int, field_arcsec: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        make_population(n_galaxies, 0, field_arcsec)
