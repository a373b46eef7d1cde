"""The false positives of claims: every claim has a null, and under it hardly ever holds."""

import numpy as np
import pytest

from sfnetlab.bench.claims_null import NULLS, found_under_null
from sfnetlab.interpret.claims import CLAIMS

N_TRIALS = 60


def test_every_claim_has_a_null():
    assert set(NULLS) == {claim.name for claim in CLAIMS}


@pytest.mark.parametrize("name", NULLS)
def test_a_null_can_be_judged(name):
    found = found_under_null(name, 0)
    assert np.isfinite([found.value, found.low, found.high, found.p]).all()


@pytest.mark.parametrize("name", ["alignment", "recurrence above an untrained network", "first component"])
def test_a_claim_whose_truth_lies_on_its_line_hardly_ever_holds(name):
    held = [found_under_null(name, trial).verdict == "holds" for trial in range(N_TRIALS)]
    assert np.mean(held) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / N_TRIALS)
