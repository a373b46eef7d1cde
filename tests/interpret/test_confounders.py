"""Confounded features against planted ones and slow versions."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import spearmanr

from sfnetlab.errors import DataError
from sfnetlab.interpret.confounders import column_or_difference, find_confounders

N = 600


@pytest.fixture(scope="module")
def galaxies():
    """Features: 0 follows redshift, 1 is the square of position, 2 mass (as the target is), 3 the target, 4 silent."""
    rng = np.random.default_rng(0)
    nuisances = pd.DataFrame({"z": rng.random(2 * N), "dec": rng.normal(size=2 * N), "seeing": rng.random(2 * N)})
    mass = rng.normal(size=2 * N)
    target = mass + rng.normal(size=2 * N)
    features = rng.normal(size=(2 * N, 5)) * 0.3
    features += np.column_stack([np.exp(2 * nuisances["z"]), nuisances["dec"] ** 2, mass, target, np.zeros(2 * N)])
    features[:, 4] = 0
    nuisances.loc[::7, "seeing"] = np.nan
    return np.maximum(features + 1, 0), nuisances, pd.DataFrame({"oh": target}), pd.DataFrame({"mass": mass})


@pytest.fixture(scope="module", params=[np.asarray, sparse.csr_array])
def found(request, galaxies):
    features, nuisances, targets, held = galaxies
    return find_confounders(
        request.param(features[:N]), nuisances[:N], request.param(features[N:]), nuisances[N:], targets[N:], held[N:]
    )


def test_features_that_follow_nuisances_are_flagged_even_when_not_monotone(found):
    table = found.features
    assert table["is_confounded"].tolist() == [True, True, False, False, False]
    assert table.loc[1, "worst_rho"] < 0.5
    assert "R²" in table.loc[1, "warning"]
    assert "follows z" in table.loc[0, "warning"]
    assert (table.loc[2:, "warning"] == "").all()
    assert (table.loc[2:3, "r2_nuisances"] < 0.05).all()


def test_a_silent_feature_is_nan_and_not_flagged(found):
    assert np.isnan(found.features.loc[4, "r2_nuisances"])
    assert np.isnan(found.features.loc[4, "worst_rho"])
    assert found.targets.loc[4, ["rho", "partial_rho"]].isna().all()


def test_correlations_with_nuisances_are_scipys_over_the_galaxies_that_have_them(found, galaxies):
    features, nuisances, *_ = galaxies
    for row in found.nuisances[found.nuisances["feature"] < 4].itertuples():
        known = nuisances[row.nuisance][N:].notna().to_numpy()
        expected = spearmanr(features[N:, row.feature][known], nuisances[row.nuisance][N:][known]).statistic
        assert row.rho == pytest.approx(expected)
        assert row.low < row.rho < row.high
        assert row.n == known.sum()


def test_at_fixed_mass_only_what_is_more_than_mass_goes_with_the_target(found):
    targets = found.targets
    assert targets.loc[2, "rho"] > 0.5
    assert abs(targets.loc[2, "partial_rho"]) < 0.15
    assert targets.loc[3, "partial_low"] > 0.5
    assert list(targets.columns[-3:]) == ["partial_rho", "partial_low", "partial_high"]


def test_galaxies_without_what_is_held_fixed_are_left_out(galaxies):
    features, nuisances, targets, held = galaxies
    held = held[np.arange(2 * N) % 2 == 1].reindex(held.index)
    few = held[: N + 40].reindex(held.index)
    parts = (features[:N], nuisances[:N], features[N:], nuisances[N:], targets[N:])
    assert (find_confounders(*parts, held[N:]).targets["n"] == N / 2).all()
    assert find_confounders(*parts, few[N:]).targets["rho"].isna().all()


def test_unusable_nuisances_are_refused(galaxies):
    features, nuisances, targets, held = galaxies
    rest = (targets[N:], held[N:])
    with pytest.raises(ValueError, match="differ"):
        find_confounders(features[:N], nuisances[:N], features[N:], nuisances[N:][["z"]], *rest)
    none = nuisances[["z"]] * np.nan
    with pytest.raises(ValueError, match="none of 1 nuisances"):
        find_confounders(features[:N], none[:N], features[N:], none[N:], *rest)


def test_a_column_or_a_difference_is_read_from_its_text():
    catalog = pd.DataFrame({"g": [3.0, np.nan], "r": [1, 2], "smooth - or": [5, 6], "name": ["a", "b"]})
    assert column_or_difference(catalog, "r").tolist() == [1, 2]
    assert column_or_difference(catalog, "smooth - or").tolist() == [5, 6]
    difference = column_or_difference(catalog, "g - r")
    assert difference.name == "g - r"
    assert difference[0] == 2
    assert np.isnan(difference[1])


@pytest.mark.parametrize("text", ["i", "g - i", "g - r - g", "name"])
def test_another_text_is_an_error_that_names_the_columns(text):
    catalog = pd.DataFrame({"g": [3.0], "r": [1], "name": ["a"]})
    with pytest.raises(DataError, match=r"numeric are \['g', 'r'\]"):
        column_or_difference(catalog, text)
