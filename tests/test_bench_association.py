"""The benchmark of the permutation test at a small size."""

import pytest

from sfnetlab.bench import association


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, size in {"N_GALAXIES": 200, "N_FEATURES": 64, "N_LABELS": 4, "N_PERMUTATIONS": 5}.items():
        monkeypatch.setattr(association, name, size)
    monkeypatch.setattr(association, "DENSITY", 0.3)


def test_dense_and_csr_tables_have_a_row_against_scipys_pairs():
    dense, csr = association.association("cpu")
    assert "64 features (dense), 4 labels, 5 permutations, 200 galaxies" in dense.case
    assert "(CSR)" in csr.case
    assert dense.ratio is not None
    assert dense.ratio > 1


def test_a_null_that_is_not_scipys_is_no_result(monkeypatch):
    from sfnetlab.metrics import association as metrics

    test = metrics.association_test
    monkeypatch.setattr(metrics, "association_test", lambda *a, **k: test(*a, **{**k, "seed": 1}))
    with pytest.raises(AssertionError, match="permuted maxima"):
        next(association.association("cpu"))
