"""What is said of galaxies: which are shown, neighbours by code, rare combinations, planes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sfnetlab.atlas.galaxies import choose_galaxies, galaxy_chunks, nearest_by_code, planes, rare_combinations


def random_codes(n, d, density, seed=0):
    table = sparse.random_array(
        (n, d), density=density, rng=np.random.default_rng(seed), format="csr", dtype=np.float32
    )
    return sparse.csr_array(table)


def test_test_galaxies_are_shown_before_valid_and_train_ones():
    catalog = pd.DataFrame({"split": ["train"] * 6 + ["valid"] * 2 + ["test"] * 3})
    assert choose_galaxies(catalog, 4).tolist()[-3:] == [8, 9, 10]
    assert set(choose_galaxies(catalog, 6)) > {6, 7, 8, 9, 10}
    assert choose_galaxies(catalog, 100).tolist() == list(range(11))


@pytest.mark.parametrize("n", [3, 700])
def test_neighbours_are_those_of_the_largest_cosine(n):
    codes = random_codes(n, 40, 0.15)
    rows, cosines = nearest_by_code(codes, 5)
    dense = codes.toarray()
    unit = dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-30)
    expected = unit @ unit.T
    np.fill_diagonal(expected, -np.inf)
    m = min(5, n - 1)
    np.testing.assert_allclose(cosines, -np.sort(-expected, axis=1)[:, :m], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(expected, rows, axis=1), cosines, atol=1e-6)


def test_a_galaxy_alone_has_no_neighbours():
    rows, cosines = nearest_by_code(random_codes(1, 5, 0.9))
    assert rows.shape == cosines.shape == (1, 0)


def test_rare_combinations_are_those_of_the_slow_loop():
    codes = random_codes(60, 12, 0.25)
    active = codes.toarray() != 0
    expected = []
    for row in active:
        on = np.flatnonzero(row)
        pairs = [(a, b) for a in on for b in on if a != b]
        shares = [np.mean(active[:, a] & active[:, b]) for a, b in pairs]
        expected.append(np.mean(-np.log10(shares)) if pairs else np.nan)
    np.testing.assert_allclose(rare_combinations(codes), expected)


def test_a_pair_that_is_seen_once_is_the_rarest():
    active = np.zeros((50, 4), dtype=np.float32)
    active[:, 0] = active[:, 1] = 1
    active[7] = [1, 0, 0, 1]
    scores = rare_combinations(sparse.csr_array(active))
    assert np.nanargmax(scores) == 7
    assert scores[7] == pytest.approx(np.log10(50))


def test_planes_are_drawn_as_far_as_there_are_labels():
    lines = {name: [0.1, 0.2] for name in ("log_N2", "log_Ha", "log_O3", "log_Hb")}
    everything = pd.DataFrame(
        lines | {"lgm_tot_p50": [10.0, 9], "oh_p50": [9.0, 8.9], "z": [0.1, 0.2], "petroR50_r": [2.0, 3]}
    )
    assert [plane.name for plane in planes(everything)] == ["BPT diagram", "Mass and metallicity", "Size and redshift"]
    assert [plane.name for plane in planes(everything.drop(columns=["log_N2", "oh_p50"]))] == ["Size and redshift"]
    assert not list(planes(pd.DataFrame({"z": [np.nan], "petroR50_r": [1.0]})))
    (bpt, _, _) = planes(everything)
    for _, x, y in bpt.curves:
        assert np.isfinite(y).all()
        assert len(x) == len(y) > 10


def test_missing_words_and_truth_values_are_empty_text(made_up):
    catalog = made_up.galaxies.catalog[["id_str", "split"]]
    n = len(catalog)
    words = {"comment": [None, *["nice"] * (n - 1)], "flag": pd.array([None, *[True] * (n - 1)], dtype="boolean")}
    galaxies = replace(made_up.galaxies, catalog=catalog.assign(**words))
    chunk = next(iter(galaxy_chunks(replace(made_up, galaxies=galaxies))))
    assert chunk["texts"][:2] == [["", ""], ["nice", "True"]]
