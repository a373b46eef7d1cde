"""How latents are shared among threads."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sfnetlab.training.sae.kernels import update


@given(st.lists(st.integers(0, 500), min_size=1, max_size=60), st.integers(1, 20))
@settings(deadline=None)
def test_ranges_hold_every_latent_once_and_about_the_same_work(n_active: list[int], n_ranges: int) -> None:
    bounds = np.full(n_ranges + 1, -1, np.int64)
    update.cut_ranges(np.array(n_active, np.int32), bounds)
    assert (bounds[0], bounds[-1]) == (0, len(n_active))
    assert (np.diff(bounds) >= 0).all()
    work = np.array(n_active) + update.STEP_WORK
    for first, last in pairwise(bounds):
        assert work[first:last].sum() <= work.sum() / n_ranges + work.max()
