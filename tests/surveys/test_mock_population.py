"""The mock population obeys the relations it is drawn from, and hides what it promises to hide."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from astropy.cosmology import FlatLambdaCDM
from scipy.stats import spearmanr

from sfnetlab.surveys.lines import AGN, LINES, bpt_class, kauffmann_2003, tremonti_2004
from sfnetlab.surveys.mock_population import (
    DISTRACTORS,
    HIDDEN_SCATTER_DEX,
    luminosity_distance_mpc,
    make_population,
)
from sfnetlab.surveys.mock_render import ELLIPTICAL, IRREGULAR, MERGER, SPIRAL

FIELD_ARCSEC = 38.0
MAGNITUDES = [f"modelMag_{band}" for band in "ugriz"]


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
    assert measured["oh_p50_hidden"].std() == pytest.approx(HIDDEN_SCATTER_DEX, abs=0.0025)


def boosted_rmse(X: pd.DataFrame, y: pd.Series) -> float:
    """RMSE in the last third of the rows, of boosting on the others."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    n_train = 2 * len(X) // 3
    model = HistGradientBoostingRegressor(max_iter=150, min_samples_leaf=30, random_state=0)
    model.fit(X.iloc[:n_train], y.iloc[:n_train])
    return float(np.sqrt(np.mean((y.iloc[n_train:] - model.predict(X.iloc[n_train:])) ** 2)))


@pytest.fixture(scope="module")
def rmse_of_factors(measured: pd.DataFrame) -> float:
    return boosted_rmse(measured.filter(like="factor_"), measured["oh_p50"])


def test_boosting_on_the_factors_learns_most_of_what_is_not_hidden(rmse_of_factors: float) -> None:
    assert HIDDEN_SCATTER_DEX < rmse_of_factors < 1.8 * HIDDEN_SCATTER_DEX


def test_photometry_tells_far_less_of_the_metallicity_than_the_factors(
    measured: pd.DataFrame, rmse_of_factors: float
) -> None:
    photometry = measured[[*MAGNITUDES, "petroR50_r", "petroR90_r"]]
    colours = photometry.iloc[:, :5].diff(axis=1).iloc[:, 1:].add_prefix("colour_")
    assert boosted_rmse(photometry.join(colours), measured["oh_p50"]) > 1.35 * rmse_of_factors


def test_no_colour_is_nearly_the_metallicity(measured: pd.DataFrame) -> None:
    colours = [measured[blue] - measured[red] for blue, red in combinations(MAGNITUDES, 2)]
    assert max(abs(np.corrcoef(colour, measured["oh_p50"])[0, 1]) for colour in colours) < 0.7


@pytest.fixture(scope="module")
def at_fixed_mass(population: pd.DataFrame) -> pd.DataFrame:
    """Spirals, with what is left of their visible metallicity beside a smooth relation with mass and star formation."""
    spirals = population[(population["factor_type"] == SPIRAL) & (population["sfr_tot_p50"] > -1.5)]
    mass, sfr = spirals["lgm_tot_p50"] - 10, spirals["sfr_tot_p50"]
    design = np.column_stack([np.ones(len(spirals)), mass, mass**2, sfr, mass * sfr])
    y = spirals["oh_p50_visible"].to_numpy()
    return spirals.assign(rest=y - design @ np.linalg.lstsq(design, y)[0])


def slope(rows: pd.DataFrame, factor: str) -> float:
    return float(np.polyfit(rows[factor], rows["rest"], 1)[0])


def test_clumps_lower_the_metallicity_of_barred_galaxies_least(at_fixed_mass: pd.DataFrame) -> None:
    clumpy = at_fixed_mass[at_fixed_mass["factor_clump_strength"] > 0].copy()
    clumpy["log_clumps"] = np.log(clumpy["factor_clump_strength"])
    barred = clumpy["factor_bar_strength"] > 0
    assert slope(clumpy[~barred], "log_clumps") < -0.03
    assert slope(clumpy[barred], "log_clumps") > 0.5 * slope(clumpy[~barred], "log_clumps")


def test_open_arms_matter_beside_a_strong_bulge_only(at_fixed_mass: pd.DataFrame) -> None:
    armed = at_fixed_mass[at_fixed_mass["factor_n_arms"] > 0]
    bulgy = armed["factor_bulge_to_total"] > 0.2
    strong, weak = (slope(armed[rows], "factor_pitch_angle_deg") for rows in (bulgy, ~bulgy))
    assert strong < -0.005
    assert abs(weak) < 0.4 * abs(strong)


@pytest.mark.parametrize("factor", DISTRACTORS)
def test_no_label_depends_on_what_distracts(at_fixed_mass: pd.DataFrame, factor: str) -> None:
    shown = at_fixed_mass[at_fixed_mass[factor] > 0]
    log_n2 = np.log10((shown["nii_6584_flux"] / shown["h_alpha_flux"]).clip(1e-3))
    for label in (shown["rest"], shown["lgm_tot_p50"], shown["sfr_tot_p50"], log_n2, shown["bptclass"] == AGN):
        assert abs(spearmanr(shown[factor], label).statistic) < 4.5 / np.sqrt(len(shown))


def test_line_ratios_follow_the_metallicity_at_fixed_mass(at_fixed_mass: pd.DataFrame) -> None:
    star_forming = at_fixed_mass[at_fixed_mass["oh_p50"] > 0]
    log_n2 = np.log10(star_forming["nii_6584_flux"] / star_forming["h_alpha_flux"])
    log_o3 = np.log10(star_forming["oiii_5007_flux"] / star_forming["h_beta_flux"])
    assert spearmanr(log_n2, star_forming["rest"]).statistic > 0.3
    assert spearmanr(log_o3, star_forming["rest"]).statistic < -0.4


def test_rare_factors_are_rare(population: pd.DataFrame) -> None:
    discs = population[population["factor_type"] != ELLIPTICAL]
    assert 0.02 < (population["factor_type"] == MERGER).mean() < 0.05
    assert 0.01 < (population["factor_type"] == IRREGULAR).mean() < 0.15
    assert 0.2 < (discs["factor_bar_strength"] > 0).mean() < 0.35
    assert 0.1 < (population["factor_companion_flux_ratio"] > 0).mean() < 0.3
    assert 0.02 < (population["factor_agn_fraction"] > 0).mean() < 0.2


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
