import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from sfnetlab.metrics.method_scores import with_budget
from sfnetlab.metrics.selection import (
    alive_features,
    are_chosen,
    chosen_on_valid,
    features_of_budgets,
    k_at_budgets,
    select_forward,
)


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


def scored(k, valid, test=0.5, seed=0, **more):
    """Rows of one run on a budget of 4 of 20 features, with its errors on valid and test galaxies."""
    about = {"features": "sae", "k": k, "seed": seed, "probe": "linear", "n_features_used": 4, "target": "z"} | more
    errors = {"train": 0.0, "valid": valid, "test": test}
    rows = [about | {"column": "a", "split": part, "metric": "rmse", "value": value} for part, value in errors.items()]
    return [*rows, *(row | {"n_features_used": 20} for row in rows)]


def table_of(*runs):
    return pd.DataFrame([row for rows in runs for row in rows]).astype({"k": "Int64", "seed": "Int64"})


def test_at_a_budget_stands_the_k_that_is_best_on_valid_and_not_the_nearest_or_the_best_on_test():
    metrics = table_of(scored(4, valid=0.9, test=0.1), scored(8, valid=0.2, test=0.8), scored(16, valid=0.4, test=0.3))
    choices = k_at_budgets(metrics)
    assert choices.to_dict("records") == [{"target": "z", "features": "sae", "probe": "linear", "budget": 4, "k": 8}]
    runs = with_budget(metrics[metrics["split"] == "test"])
    assert runs[are_chosen(runs, choices)]["k"].tolist() == [8]


def test_a_choice_is_by_the_mean_over_runs():
    runs = [
        scored(k, valid, seed=seed)
        for k, errors in ((2, (0.1, 0.9)), (8, (0.3, 0.4)))
        for seed, valid in enumerate(errors)
    ]
    assert k_at_budgets(table_of(*runs))["k"].tolist() == [8]


def test_a_variant_that_lacks_a_run_is_passed_over():
    runs = [scored(2, 0.1), scored(8, 0.3), scored(8, 0.4, seed=1)]
    assert k_at_budgets(table_of(*runs))["k"].tolist() == [8]


def test_of_equals_the_smallest_k_stands_and_what_has_no_k_stands_for_itself():
    metrics = table_of(scored(8, 0.3), scored(2, 0.3), scored(None, 0.5, features="pca", seed=None))
    choices = k_at_budgets(metrics)
    assert dict(zip(choices["features"], choices["k"].fillna(0), strict=True)) == {"sae": 2, "pca": 0}
    assert are_chosen(with_budget(metrics[metrics["split"] == "test"]), choices).sum() == 2


def test_of_several_columns_all_count_together():
    runs = [
        [row | {"column": column} for row in scored(k, valid)]
        for k, errors in ((2, {"a": 0.1, "b": 0.9, "pooled": 0.7}), (8, {"a": 0.5, "b": 0.5, "pooled": 0.5}))
        for column, valid in errors.items()
    ]
    assert k_at_budgets(table_of(*runs))["k"].tolist() == [8]


def test_of_classes_the_larger_score_is_the_better_one():
    runs = [[row | {"metric": "auc"} for row in scored(k, valid)] for k, valid in ((2, 0.9), (8, 0.6))]
    more = [[row | {"metric": "balanced_accuracy"} for row in scored(k, valid)] for k, valid in ((2, 0.1), (8, 0.9))]
    assert k_at_budgets(table_of(*runs, *more))["k"].tolist() == [2]


@given(st.permutations([2, 4, 8, 16]), st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_no_score_on_test_galaxies_changes_a_choice(ks, tests):
    valid = {k: 0.1 + 0.01 * abs(k - 8) for k in ks}
    metrics = table_of(*(scored(k, valid[k], test) for k, test in zip(ks, tests, strict=True)))
    assert k_at_budgets(metrics)["k"].tolist() == [8]


def test_any_free_choice_is_made_by_the_same_rule():
    runs = [
        scored(4, valid, features=name, probe=probe)
        for name, probe, valid in (("a", "x", 0.3), ("b", "x", 0.2), ("b", "y", 0.1))
    ]
    chosen = chosen_on_valid(table_of(*runs), ("target",), ("features", "probe"))
    assert chosen.to_dict("records") == [{"target": "z", "features": "b", "probe": "y"}]
