"""How stages grow with the survey: what is run, what is said of it."""

import pytest

from sfnetlab.bench import scale
from sfnetlab.errors import SfnetlabError


def test_a_stage_is_held_against_what_it_takes_for_the_smaller_survey():
    small, large = scale.Cost(2.0, 3.0, 100.0), scale.Cost(30.0, 24.0, 110.0)
    row = scale._row("train-sae", (1_000, 10_000), small, large, "cpu")
    assert (row.ours, row.reference, row.ratio) == (30.0, 20.0, 1.5)
    assert (row.peak_mb, row.reference_peak_mb) == (110.0, 100.0)
    assert (row.cpu_s, row.reference_cpu_s) == (24.0, 3.0)
    assert row.case == "train-sae, 10,000 galaxies, against 1,000 times 10: exponent 0.90 in CPU s"


def test_stages_run_as_processes_of_their_own_and_tell_seconds_and_memory():
    (row,) = scale.rows_of((60, 120), "cpu", ("prepare-survey",))
    assert row.case.startswith("prepare-survey, 120 galaxies")
    assert 0 < row.ours < 60
    assert row.peak_mb is not None
    assert row.cpu_s is not None
    assert row.cpu_s > 0
    assert 10 < row.peak_mb < 4000


def test_a_stage_that_fails_says_why():
    with pytest.raises(SfnetlabError, match=r"train-sae failed: .*run `sfnetlab import-embeddings CONFIG` first"):
        next(scale.rows_of((60, 120), "cpu", ("train-sae",)))
