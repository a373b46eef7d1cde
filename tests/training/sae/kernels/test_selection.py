"""What the selection's kernels promise to each other: bounds that hold, and nothing written where others write."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfnetlab.training.sae.kernels import selection
from sfnetlab.training.sae.kernels.bundles import Bounds, Candidates, RoughRow, RoundedEncoder


@pytest.mark.parametrize("seed", range(4))
def test_the_bounds_hold_where_rounding_is_worst(seed: int) -> None:
    """Numbers halfway between two of bfloat16's, all rounded the same way."""
    rng = np.random.default_rng(seed)
    d, n_latents = 200, 70
    z = np.full((5, d), 1 + 2.0**-8 - 2.0**-20, np.float32) * rng.choice([1, 3, 1e-3], (5, 1)).astype(np.float32)
    W_enc = np.full((n_latents, d), 1 + 3 * 2.0**-8 + 2.0**-20, np.float32)
    W_enc *= rng.choice([-1, 1], (n_latents, 1)).astype(np.float32)
    b_enc = rng.normal(0, 5, n_latents).astype(np.float32)
    slack = selection.slack_of(b_enc, d)
    halves, row_halves = np.empty(W_enc.shape, np.uint16), np.empty(z.shape, np.uint16)
    norms, shares = np.empty(n_latents, np.float32), np.empty(n_latents, np.float32)
    row_errors = np.empty(len(z), np.float32)
    selection.round_latents(W_enc, RoundedEncoder(halves, norms, shares))
    selection.round_batch(z, shares.max(), row_halves, row_errors)
    as_tensors = [torch.from_numpy(bits).view(torch.bfloat16) for bits in (row_halves, halves)]
    assert torch.equal(as_tensors[0], torch.from_numpy(z).bfloat16())
    assert torch.equal(as_tensors[1], torch.from_numpy(W_enc).bfloat16())
    pre = (as_tensors[0] @ as_tensors[1].T).view(torch.uint16).numpy()
    exact = z.astype(np.float64) @ W_enc.T.astype(np.float64) + b_enc
    columns, bounds = np.empty(n_latents, np.int32), Bounds(*np.empty((2, n_latents), np.float32))
    for i in range(len(z)):
        lowest = np.float32(-1e30)
        row = RoughRow(pre[i], b_enc, slack, norms, row_errors[i])
        found = selection.rough_candidates(row, lowest, columns, bounds)
        assert found == (n_latents, n_latents)
        assert (bounds.lowers <= exact[i]).all()
        assert (exact[i] <= bounds.uppers).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 300), st.integers(0, 1000))
def test_what_is_kept_lies_side_by_side_and_nothing_else_is_written(n: int, seed: int) -> None:
    """Slots behind a row's are another thread's."""
    rng = np.random.default_rng(seed)
    values, columns = rng.integers(0, 9, n).astype(np.float32), rng.permutation(n).astype(np.int32)
    stays = (values > 5) | ((values == 5) & (np.cumsum(values == 5) <= 3))
    to_columns, to_values = np.full(n + 20, -7, np.int32), np.full(n + 20, -7, np.float32)
    found, to = Candidates(columns, values), Candidates(to_columns, to_values)
    n_kept, n_left = selection.keep(found, n, np.float32(5), 3, to)
    assert (n_kept, n_left) == (stays.sum(), 3 - (stays & (values == 5)).sum())
    np.testing.assert_array_equal(to_columns, np.r_[columns[stays], np.full(n + 20 - n_kept, -7)])
    np.testing.assert_array_equal(to_values, np.r_[values[stays], np.full(n + 20 - n_kept, -7)])
