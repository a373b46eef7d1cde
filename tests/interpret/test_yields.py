"""Yield of rare galaxies: planted ones are found, purity equals a slow loop, nothing is chosen on test galaxies."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import average_precision_score

from sfnetlab.interpret.yields import FOREST, MIN_RARE, NEIGHBOURS, RANDOM, average_precision, find_rare

BUDGETS = (10, 20, 50)


def survey(n: int, seed: int):
    """A sparse feature that means rarity, a signed component whose low end does, an embedding that holds both."""
    rng = np.random.default_rng(seed)
    rare = (rng.random(n) < 0.06).astype(float)
    sparse = np.where(rng.random((n, 5)) < 0.1, rng.exponential(size=(n, 5)), 0)
    sparse[:, 3] = np.where(rare == 1, rng.uniform(2, 3, n), sparse[:, 3] * (rng.random(n) < 0.2))
    component = rng.standard_normal((n, 3))
    component[:, 1] -= 3 * rare
    embedding = np.hstack([sparse, component])
    return sp.csr_array(sparse), component, embedding, rare


@pytest.fixture(scope="module")
def found():
    known, test = survey(600, 0), survey(400, 1)
    tables = {"sae": (known[0], test[0]), "pca": (known[1], test[1])}
    table = find_rare(tables, (known[2], test[2]), (known[3], test[3]), (*BUDGETS, 5000), n_bootstrap=200, seed=0)
    return table, test


def purity(table, method, budget, metric="purity"):
    rows = table[(table["method"] == method) & (table["metric"] == metric) & (table["n_inspected"] == budget)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_feature_and_end_that_mean_rarity_are_chosen(found):
    table, _ = found
    assert (purity(table, "sae", 10)["feature"], purity(table, "sae", 10)["sign"]) == (3, 1)
    assert (purity(table, "pca", 10)["feature"], purity(table, "pca", 10)["sign"]) == (1, -1)


def test_purity_and_recall_are_counts_of_the_first_galaxies(found):
    table, (sparse, component, _, rare) = found
    for method, score in (("sae", sparse.toarray()[:, 3]), ("pca", -component[:, 1])):
        first = np.argsort(-score)[:10]
        row = purity(table, method, 10)
        assert row["value"] == pytest.approx(rare[first].mean())
        assert purity(table, method, 10, "recall")["value"] == pytest.approx(rare[first].sum() / rare.sum())
        assert (row["n_rare"], row["n"]) == (rare.sum(), 400)


def test_galaxies_of_equal_score_are_taken_in_random_order(found):
    table, (sparse, _, _, rare) = found
    score = sparse.toarray()[:, 3]
    budget = 50
    assert np.count_nonzero(score) < budget
    rng = np.random.default_rng(0)
    draws = [rare[np.lexsort((rng.random(400), -score))[:budget]].mean() for _ in range(3000)]
    assert purity(table, "sae", budget)["value"] == pytest.approx(np.mean(draws), abs=0.002)
    assert purity(table, RANDOM, 20)["value"] == pytest.approx(rare.mean())


def test_planted_feature_beats_the_other_searches(found):
    table, _ = found
    sae, neighbours, random = (purity(table, method, 20)["value"] for method in ("sae", NEIGHBOURS, RANDOM))
    assert sae > 0.9
    assert sae > neighbours > random
    assert set(table["method"]) == {"sae", "pca", NEIGHBOURS, FOREST, RANDOM}


def test_intervals_hold_the_value_and_budgets_beyond_the_sample_are_left_out(found):
    table, _ = found
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    assert set(table["n_inspected"]) == set(BUDGETS)
    assert purity(table, RANDOM, 20)["high"] > purity(table, RANDOM, 20)["low"]


def test_galaxies_of_unknown_rarity_are_left_out():
    known, test = survey(600, 0), survey(400, 1)
    half = np.arange(400) < 200
    flags = np.where(half, test[3], np.nan)
    arguments = {"n_bootstrap": 100, "seed": 0}
    with_nan = find_rare({"sae": (known[0], test[0])}, (known[2], test[2]), (known[3], flags), BUDGETS, **arguments)
    without = find_rare(
        {"sae": (known[0], test[0][half])}, (known[2], test[2][half]), (known[3], test[3][half]), BUDGETS, **arguments
    )
    assert with_nan.equals(without)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_sklearn_with_ties(seed):
    rng = np.random.default_rng(seed)
    score, rare = rng.integers(0, 6, 80).astype(float), rng.random(80) < 0.2
    assert average_precision(score, rare) == pytest.approx(average_precision_score(rare, score))


@pytest.mark.parametrize(
    ("flags", "message"),
    [(np.zeros(400), f"0 rare and 400 others, expected {MIN_RARE}"), (np.full(400, 2.0), "0, 1 or NaN")],
)
def test_too_few_or_unknown_flags_are_refused(flags, message):
    known, test = survey(600, 0), survey(400, 1)
    with pytest.raises(ValueError, match=message):
        find_rare({}, (known[2], test[2]), (known[3], flags), BUDGETS, n_bootstrap=100, seed=0)
