"""What the page of a feature shows: which galaxies, and the evidence of this feature alone."""

import numpy as np

from sfnetlab.atlas.features import N_INACTIVE, N_SAMPLE, N_STRONGEST, N_WEAK, Column, groups_of


def column_of(values):
    rows = np.flatnonzero(values)
    return Column(3, rows, values[rows].astype(np.float32))


def test_strongest_middle_and_weakest_are_disjoint_and_in_order():
    values = np.zeros(200)
    values[::2] = np.random.default_rng(0).uniform(1, 5, 100)
    strongest, middle, weak, inactive = groups_of(column_of(values), np.ones(200, bool), is_dense=False)
    order = np.argsort(-values)
    assert strongest.rows.tolist() == order[:N_STRONGEST].tolist()
    assert weak.rows.tolist() == order[99 : 99 - N_WEAK : -1].tolist()
    assert (np.diff(values[middle.rows]) < 0).all()
    assert len(set(middle.rows)) == N_SAMPLE
    assert not set(middle.rows) & {*strongest.rows, *weak.rows}
    assert (values[inactive.rows] == 0).all()
    assert len(inactive.rows) == N_INACTIVE


def test_only_the_galaxies_that_may_be_shown_are_shown():
    values = np.arange(100.0)
    is_shown = np.arange(100) % 5 == 0
    for group in groups_of(column_of(values), is_shown, is_dense=False):
        assert is_shown[group.rows].all()


def test_a_feature_of_few_galaxies_has_them_once():
    values = np.zeros(10)
    values[[2, 5]] = [1, 2]
    strongest, middle, weak, inactive = groups_of(column_of(values), np.ones(10, bool), is_dense=False)
    assert strongest.rows.tolist() == [5, 2]
    assert len(middle.rows) == len(weak.rows) == 0
    assert len(inactive.rows) == N_INACTIVE


def test_a_dense_feature_has_its_lowest_galaxies():
    values = np.linspace(-5, 5, 60).astype(np.float32)
    strongest, _, lowest = groups_of(Column(0, np.arange(60), values), np.ones(60, bool), is_dense=True)
    assert strongest.rows[0] == 59
    assert lowest.rows.tolist() == [0, 1, 2, 3, 4]


def test_inactive_galaxies_are_the_same_at_every_build():
    values = np.zeros(500)
    values[:20] = 1
    first, second = (groups_of(column_of(values), np.ones(500, bool), is_dense=False)[-1].rows for _ in range(2))
    np.testing.assert_array_equal(first, second)
