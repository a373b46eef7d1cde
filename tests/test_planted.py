"""Planted dictionaries: what the rows are made of is what the truth says."""

import numpy as np
import pytest

from sfnetlab.planted import ZIPF_EXPONENT, ZIPF_SHIFT, PlantedDictionary, forest_parents, make_planted_dictionary

SMALL = {"n_train": 3000, "n_test": 500, "d_in": 32, "n_atoms": 64, "n_active": 4}


def activity(planted: PlantedDictionary) -> np.ndarray:
    return planted.latents.toarray() > 0


def noise(planted: PlantedDictionary) -> np.ndarray:
    return planted.X - planted.mean - planted.latents @ planted.atoms


@pytest.fixture(scope="module")
def full_size() -> PlantedDictionary:
    return make_planted_dictionary()


def test_frequencies_at_full_size_are_those_of_the_published_recipe(full_size):
    frequency = np.bincount(full_size.latents[:65_536].indices, minlength=2048) / 65_536
    found = [100 * value for value in (frequency.max(), np.median(frequency), frequency.min())]
    assert found == pytest.approx([31, 0.28, 0.11], rel=0.03)


def test_noise_floor_and_pca_at_full_size_are_those_of_the_published_recipe(full_size):
    mean = full_size.X_train.mean(axis=0)
    centred = full_size.X_test - mean
    total = np.square(centred).sum()
    _, axes = np.linalg.eigh(np.cov(full_size.X_train, rowvar=False))
    energy = np.square(centred @ axes[:, ::-1]).sum(axis=0).cumsum() / total
    assert np.square(noise(full_size)[65_536:]).sum() / total == pytest.approx(0.0106, abs=1e-4)
    found = [1 - energy[m - 1] for m in (16, 32, 64, 128, 256)]
    assert found == pytest.approx([0.802, 0.689, 0.542, 0.364, 0.166], abs=0.003)


def test_the_mean_is_as_long_against_the_spread_as_in_the_published_recipe(full_size):
    mean = full_size.X_train.mean(axis=0, dtype=np.float64)
    spread = np.sqrt(full_size.X_train.var(axis=0, dtype=np.float64).sum())
    assert np.linalg.norm(mean) / spread == pytest.approx(1.15, abs=0.01)


def test_an_atom_is_active_in_the_share_of_rows_that_its_weight_says(full_size):
    weights = (np.arange(2048) + ZIPF_SHIFT) ** -ZIPF_EXPONENT
    times = np.geomspace(1, 100, 2_000)
    time = times[np.searchsorted((1 - np.exp(-weights * times[:, None])).sum(axis=1), 16)]
    expected = 1 - np.exp(-weights * time)
    found = np.bincount(full_size.latents.indices, minlength=2048) / len(full_size.X)
    deviations = (found - expected) / np.sqrt(expected * (1 - expected) / len(full_size.X))
    assert np.abs(deviations).max() < 5
    assert np.std(deviations) == pytest.approx(1, abs=0.05)


def test_rows_have_exactly_n_active_positive_coefficients_and_small_noise():
    planted = make_planted_dictionary(**SMALL)
    assert (activity(planted).sum(axis=1) == 4).all()
    assert planted.latents.has_canonical_format
    assert noise(planted).std() == pytest.approx(0.02, rel=0.02)
    assert np.linalg.norm(planted.atoms, axis=1) == pytest.approx(1, abs=1e-6)


def test_every_atom_can_be_active_in_every_row():
    planted = make_planted_dictionary(n_train=10, n_test=0, d_in=8, n_atoms=20, n_active=20)
    assert activity(planted).all()


def test_coefficients_have_the_moments_of_the_gamma_distribution():
    values = make_planted_dictionary(**SMALL).latents.data
    assert (values.mean(), values.var()) == pytest.approx((1, 0.25), rel=0.05)


@pytest.mark.parametrize("options", [{}, {"block_size": 4}, {"n_children": 3, "column_ratio": 10}])
def test_rows_do_not_depend_on_how_many_there_are(options):
    few = make_planted_dictionary(**SMALL, **options)
    many = make_planted_dictionary(**SMALL | {"n_train": 9000}, **options)
    np.testing.assert_array_equal(few.X_train, many.X[:3000])
    np.testing.assert_array_equal(few.X_test, many.X_test)
    np.testing.assert_array_equal(few.atoms, many.atoms)


def test_another_seed_gives_another_dictionary_and_other_rows():
    one, other = (make_planted_dictionary(**SMALL, seed=seed) for seed in (0, 1))
    assert np.abs(np.sum(one.atoms * other.atoms, axis=1)).max() < 0.8
    assert not np.array_equal(activity(one), activity(other))


def test_column_ratio_scales_columns_and_leaves_the_truth_consistent():
    plain, scaled = (make_planted_dictionary(**SMALL, column_ratio=ratio) for ratio in (1.0, 100.0))
    factors = scaled.X / plain.X
    np.testing.assert_allclose(factors, np.broadcast_to(factors[0], factors.shape), rtol=1e-2)
    assert factors[0].max() / factors[0].min() == pytest.approx(100, rel=1e-2)
    assert np.linalg.norm(scaled.atoms, axis=1) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(noise(scaled), noise(plain) * factors[0], atol=1e-4)


def test_atoms_of_a_block_are_active_together():
    planted = make_planted_dictionary(n_train=20_000, n_test=0, d_in=8, n_atoms=256, n_active=8, block_size=4)
    active = activity(planted)[:, 128:].reshape(20_000, -1, 4)
    together = (active[:, :, 0] & active[:, :, 1]).mean() / active[:, :, 0].mean()
    apart = (active[:, :-1, 0] & active[:, 1:, 0]).mean() / active[:, :, 0].mean()
    assert together > 8 * apart
    assert (activity(planted).sum(axis=1) == 8).all()


def test_blocks_keep_their_frequency():
    frequency = [
        activity(make_planted_dictionary(n_train=20_000, n_test=0, d_in=8, n_atoms=256, n_active=8, block_size=size))
        .mean(axis=0)
        .reshape(-1, 32)
        .sum(axis=1)
        for size in (1, 4)
    ]
    np.testing.assert_allclose(frequency[1], frequency[0], rtol=0.15)


def test_a_child_is_never_active_without_its_parent():
    planted = make_planted_dictionary(**SMALL, n_children=3)
    assert planted.parent is not None
    active, children = activity(planted), np.flatnonzero(planted.parent >= 0)
    assert active[:, children].any()
    assert (active[:, children] <= active[:, planted.parent[children]]).all()
    assert (active.sum(axis=1) == 4).all()


def test_a_parent_is_often_active_without_each_child():
    planted = make_planted_dictionary(**SMALL, n_children=3)
    assert planted.parent is not None
    active, children = activity(planted), np.flatnonzero(planted.parent >= 0)
    parents = planted.parent[children]
    alone = (active[:, parents] & ~active[:, children]).sum(axis=0) / active[:, parents].sum(axis=0)
    assert alone.min() > 0.4


@pytest.mark.parametrize(("n_atoms", "n_children"), [(64, 3), (7, 2), (2048, 4), (5, 2)])
def test_a_forest_has_three_levels_of_full_families(n_atoms, n_children):
    parent = forest_parents(n_atoms, n_children)
    families = np.bincount(parent[parent >= 0], minlength=n_atoms)
    level = np.where(parent < 0, 0, np.where(parent[parent] < 0, 1, 2))
    assert set(families) <= {0, n_children}
    assert (families[level == 2] == 0).all()
    assert (families[level == 1] == n_children).all()
    assert (parent < np.arange(n_atoms)).all()
    assert np.sum(level == 0) == n_atoms - np.sum(families)
    assert np.sum((level == 0) & (families == 0)) < 1 + n_children + n_children**2


@pytest.mark.parametrize(
    "wrong",
    [{"n_train": 0}, {"n_test": -1}, {"n_active": 65}, {"column_ratio": 0.5}, {"n_children": -1}, {"block_size": 5}],
)
def test_a_count_out_of_range_is_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        make_planted_dictionary(**SMALL | wrong)
