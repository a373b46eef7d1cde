"""Which rows and columns of embeddings stand out, and which rows occur twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfnetlab.training.sae.rows import Rows, repeated_rows, uneven_spread, without_far_rows


def rows(x, chosen=None):
    return Rows(x, np.arange(len(x)) if chosen is None else np.asarray(chosen))


def ordinary(n=300, d=12, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@given(st.integers(0, 50), st.floats(1e-6, 1e6), st.floats(-100, 100))
def test_which_rows_are_far_does_not_depend_on_unit_and_origin(seed, unit, origin):
    x = ordinary(100, seed=seed)
    x[[3, 50]] *= 1000
    for standardize in ("one scale", "columns"):
        kept = without_far_rows(rows((x + origin) * unit), 10.0, standardize)
        assert np.setdiff1d(np.arange(100), kept.chosen).tolist() == [3, 50]


def test_by_column_a_row_is_far_that_is_so_in_a_narrow_column_only():
    x = ordinary() * np.r_[1000, np.ones(11)].astype(np.float32)
    x[7, 5] = 300
    assert 7 in without_far_rows(rows(x), 10.0, "one scale").chosen
    assert 7 not in without_far_rows(rows(x), 10.0, "columns").chosen


def test_one_broken_row_makes_no_column_wide():
    x = ordinary()
    x[3, 4] = 1e20
    (message,) = uneven_spread(rows(x), "one scale", lambda row: f"galaxy {row}")
    assert "galaxy 3 (100.0%)" in message


def test_only_chosen_rows_are_looked_at():
    x = ordinary()
    x[3] = 1e6
    assert not list(uneven_spread(rows(x, np.arange(4, 300)), "one scale"))


@pytest.mark.parametrize("x", [np.ones((20, 3)), np.eye(5), np.zeros((1, 4))], ids=["all the same", "unit", "one row"])
def test_degenerate_rows_are_no_error(x):
    assert not list(uneven_spread(rows(x.astype(np.float32)), "columns"))


def test_rows_that_occur_among_others_are_found_with_the_first_of_these():
    x = ordinary(20)
    x[[15, 18]] = x[4]
    x[2] = x[4]
    repeated, originals = repeated_rows(rows(x, range(10, 20)), rows(x, range(10)))
    assert repeated.tolist() == [15, 18]
    assert originals.tolist() == [2, 2]


@pytest.mark.parametrize("chosen", [[], [0, 1]])
def test_no_row_is_repeated_among_none(chosen):
    x = ordinary(4)
    assert [len(part) for part in repeated_rows(rows(x, chosen), rows(x, np.zeros(0, dtype=int)))] == [0, 0]
    assert [len(part) for part in repeated_rows(rows(x, np.zeros(0, dtype=int)), rows(x, chosen))] == [0, 0]
