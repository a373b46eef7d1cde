"""The benchmark of the ridge path: a fair reference that is scaled to what it did, and equal results."""

import numpy as np
import pytest

from sfnetlab.bench import statistics
from sfnetlab.probes import ridge


@pytest.fixture
def small(monkeypatch):
    for name, value in {"N_ROWS": 300, "N_VALID": 50, "N_FEATURES": 8, "N_LABELS": 2, "N_PENALTIES": 6}.items():
        monkeypatch.setattr(statistics, name, value)


def test_the_ridge_path_has_one_row_with_rates_of_penalties(small, monkeypatch):
    monkeypatch.setattr(statistics, "compare", lambda *a, **_: statistics.Row(
        name=a[0], case=a[1], unit=a[2], ours=float(a[3]), reference=float(a[3]), ratio=1.0, threads=1, device="cpu"
    ))  # fmt: skip
    (row,) = statistics.ridge_path("cpu")
    assert (row.ours, row.reference, row.ratio) == (6, 2, 3)  # the loop did 2 of the 6 penalties


def test_a_path_that_is_not_scikit_learns_is_no_result(small, monkeypatch):
    monkeypatch.setattr(ridge, "ridge_path", lambda *parts: (None, np.ones((6, 2))))
    with pytest.raises(AssertionError, match="does not agree"):
        list(statistics.ridge_path("cpu"))
