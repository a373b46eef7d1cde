import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from sfnetlab.metrics.selection import alive_features, features_of_budgets, has_nearest_k, select_forward


def residual_sum(X, Y):
    design = np.column_stack([np.ones(len(X)), X])
    targets = (Y - Y.mean(axis=0)) / Y.std(axis=0)
    return np.sum((targets - design @ np.linalg.lstsq(design, targets)[0]) ** 2)


def slow_selection(X, Y, n_select):
    chosen = []
    for _ in range(n_select):
        left = [j for j in range(X.shape[1]) if j not in chosen]
        chosen.append(min(left, key=lambda j: residual_sum(X[:, [*chosen, j]], Y)))
    return chosen


def problem(seed, n=120, d=9):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * 10.0 ** rng.integers(-3, 4, d) + rng.normal(size=d)
    return X, X[:, :4] @ rng.normal(size=(4, 3)) * [1, 100, 0.01] + rng.normal(size=(n, 3))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16))
def test_selection_agrees_with_a_slow_loop_of_least_squares(seed):
    X, Y = problem(seed)
    assert select_forward(X, Y, 6).tolist() == slow_selection(X, Y, 6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16))
def test_sparse_and_dense_tables_give_one_selection(seed):
    rng = np.random.default_rng(seed)
    X = np.maximum(rng.normal(-0.5, 1, (150, 20)), 0).astype(np.float32)
    Y = rng.normal(size=(150, 2)) + X[:, :2]
    assert select_forward(sp.csr_array(X), Y, 8).tolist() == select_forward(X, Y, 8).tolist()


def test_planted_features_are_found_in_order_of_their_weight():
    X = np.random.default_rng(0).normal(size=(2000, 50))
    Y = X[:, [7]] + 3 * X[:, [31]] + 2 * X[:, [12]]
    assert select_forward(X, Y, 3).tolist() == [31, 12, 7]


def test_scale_and_offset_of_features_and_labels_do_not_matter():
    X, Y = problem(1)
    rng = np.random.default_rng(0)
    scaled = X * rng.uniform(0.01, 100, X.shape[1]) + rng.normal(size=X.shape[1])
    assert select_forward(scaled, 5 - 1e3 * Y, 6).tolist() == select_forward(X, Y, 6).tolist()


def test_constant_and_collinear_columns_are_passed_over():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6))
    X[:, 1], X[:, 3], X[:, 4] = 0.1, 3 - 2 * X[:, 0], X[:, 0] + X[:, 2]
    assert sorted(select_forward(X, rng.normal(size=(200, 1)), 6)) in (
        [0, 2, 5],
        [0, 4, 5],
        [2, 3, 5],
        [2, 4, 5],
        [3, 4, 5],
    )


@pytest.mark.parametrize(
    ("X", "Y", "n_select", "message"),
    [
        (np.eye(4), np.arange(4.0)[:, None], 5, r"n_select must lie in \[1, d=4\]"),
        (np.eye(4), np.arange(4.0)[:, None], 0, "n_select"),
        (np.eye(4), np.arange(3.0)[:, None], 1, "4 rows"),
        (np.eye(4), np.ones((4, 1)), 1, r"columns \[0\] are constant"),
        (np.eye(4) / 0.5 * np.nan, np.arange(4.0)[:, None], 1, "X: 16 of 16"),
        (np.eye(4), np.array([[0], [1], [2], [np.nan]]), 1, "Y: 1 of 4"),
    ],
)
def test_bad_arguments_are_refused(X, Y, n_select, message):
    with pytest.raises(ValueError, match=message):
        select_forward(X, Y, n_select)


def test_features_that_are_zero_throughout_are_not_alive():
    X = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]])
    assert alive_features(X).tolist() == [1, 2]
    assert alive_features(sp.csr_array(X)).tolist() == [1, 2]


@pytest.mark.parametrize(("is_ordered", "first"), [(True, 1), (False, 3)])
def test_a_budget_takes_the_first_of_ordered_features_and_else_the_best(is_ordered, first):
    X = np.random.default_rng(0).normal(size=(60, 4))
    X[:, 0] = 0
    chosen = list(features_of_budgets(X, X[:, 3:], np.array([1, 2, 3]), (1, 2, 3, 9), is_ordered=is_ordered))
    assert [len(features) for features in chosen] == [1, 2]
    assert chosen[0].tolist() == [first]


def test_at_a_budget_stands_the_nearest_k_of_two_the_larger_and_what_has_none():
    runs = pd.DataFrame({"features": ["a"] * 3 + ["b"], "k": [2, 8, 16, None], "n": 5}).astype({"k": "Int64"})
    assert has_nearest_k(runs, "n").tolist() == [False, True, False, True]
