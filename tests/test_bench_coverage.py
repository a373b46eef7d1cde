"""The benchmark of coverage: a row a case, with the share of intervals that cover beside that over galaxies alone."""

from sfnetlab.bench import coverage


def test_every_case_has_a_row_with_both_shares(monkeypatch):
    monkeypatch.setattr(coverage, "N_TRIALS", 2)
    monkeypatch.setattr(coverage, "N_RUNS", (3,))
    rows = list(coverage.coverage("cpu"))
    assert len(rows) == 7 * len(coverage.RATIOS)
    assert len({row.case for row in rows}) == len(rows)
    assert {row.unit for row in rows} == {"covered"}
    assert all(0 <= share <= 1 for row in rows for share in (row.ours, row.reference))
