"""The benchmark of what the mock survey asks, at a small size."""

import numpy as np
import pytest

from sfnetlab.bench import Row
from sfnetlab.bench.mock_survey import rows_of


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(rows_of(1500, 150, 4, "cpu"))


def value(rows: list[Row], words: str) -> float:
    (row,) = [row for row in rows if words in row.case]
    return row.ours


def test_every_demand_has_a_finite_number_beside_what_was_asked(rows: list[Row]) -> None:
    assert {row.name for row in rows} == {"mock-survey"}
    assert len({row.case for row in rows}) == len(rows)
    assert np.isfinite([row.ours for row in rows]).all()
    assert [row.ratio for row in rows] == pytest.approx([row.ours / row.reference for row in rows])


def test_all_factors_tell_more_than_photometry_and_it_more_than_three_magnitudes(rows: list[Row]) -> None:
    oracle = value(rows, "oracle, boosting")
    assert oracle < oracle * value(rows, "boosting on photometry") < value(rows, "random forest on gri") * 1.1


def test_the_classes_and_types_are_shares_of_all_galaxies(rows: list[Row]) -> None:
    shares = [row.ours for row in rows if row.case.startswith("share of") and "variance" not in row.case]
    assert len(shares) == 8
    assert all(0 < share < 1 for share in shares)
