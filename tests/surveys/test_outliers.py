"""Labels far from all others: named before training, left out where asked, refused where they are no measurement."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfnetlab.errors import DataError
from sfnetlab.settings import Target
from sfnetlab.surveys.catalog import target_rows


def catalog(n=200, seed=0, **wrong):
    """Two labels; `wrong` is a value for the row of this number, as r7=1e30."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {"id_str": [f"g{i}" for i in range(n)], "oh": rng.normal(8.9, 0.2, n), "m": rng.normal(10, 1, n)}
    )
    for row, value in wrong.items():
        table.loc[int(row[1:]), "oh"] = value
    return table


def kept(table, where="here", columns=("oh",), **settings):
    return target_rows(table, Target(columns=columns, **settings), where)


@pytest.mark.parametrize("value", [1e30, -1e30, 1e300, 1e7])
def test_a_label_that_is_no_measurement_is_refused_with_its_row_and_distance(value):
    with pytest.raises(DataError, match=r"'oh': 1 of 200 rows .*: .* \(id g7, .* spreads\).*max_spreads = 50"):
        kept(catalog(r7=value))


@pytest.mark.parametrize("columns", [("oh",), ("m", "oh")])
def test_labels_that_rule_the_squared_error_are_named(columns, caplog):
    assert kept(catalog(r7=1000.0, r9=-99.0), f"named {columns}", columns).all()
    assert "target column 'oh': 2 of 200 rows far from all others: 1000 (id g7, " in caplog.text
    assert "-99 (id g9, " in caplog.text


def test_a_survey_and_a_target_are_spoken_of_once(caplog):
    for _ in range(3):
        kept(catalog(r7=1000.0), "once")
    assert len(caplog.records) == 1


def test_far_labels_are_left_out_and_counted_where_max_spreads_is_set(caplog):
    rows = kept(catalog(r7=1e30, r9=-99.0), "left out", ("m", "oh"), max_spreads=50.0)
    assert np.flatnonzero(~rows).tolist() == [7, 9]
    assert "max_spreads = 50 leaves out 2 of 200 rows far from all others: 1e+30 (id g7, " in caplog.text


@pytest.mark.parametrize(
    "labels",
    [
        np.random.default_rng(0).lognormal(0, 1, 500),
        np.random.default_rng(0).standard_t(3, 500),
        np.random.default_rng(0).exponential(1e10, 500),
        np.arange(500) % 2,
        np.where(np.arange(500) < 400, 0.0, np.random.default_rng(0).random(500)),
    ],
    ids=["log-normal", "student", "exponential", "two values", "mostly zero"],
)
def test_nothing_is_said_of_ordinary_labels(labels, caplog):
    table = catalog(500).assign(oh=labels)
    assert kept(table, "ordinary").all()
    assert not caplog.records


@given(st.integers(0, 99), st.floats(1e-12, 1e12), st.floats(-1e6, 1e6), st.floats(3, 30))
def test_unit_and_zero_point_change_nothing(seed, unit, zero, max_spreads):
    table = catalog(seed=seed, r3=12.0)
    scaled = table.assign(oh=unit * (table["oh"] + zero))
    assert kept(table, max_spreads=max_spreads).tolist() == kept(scaled, max_spreads=max_spreads).tolist()


def test_rows_outside_the_target_do_not_count():
    table = catalog().assign(lgm_tot_p50=10.0, sfr_tot_p50=0.0, oh_p50=lambda t: t["oh"])
    table.loc[3, ["oh_p50", "sfr_tot_p50"]] = [1e30, -999]
    assert np.flatnonzero(~kept(table, columns=("oh_p50",), cut="metallicity")).tolist() == [3]


def test_max_spreads_of_one_or_less_is_refused():
    with pytest.raises(ValueError, match="max_spreads must exceed 1, got 1"):
        Target(columns=("oh",), max_spreads=1.0)
