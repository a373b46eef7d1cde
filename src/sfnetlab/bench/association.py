"""Speed of the permutation test of features against labels, which must give what a loop over pairs gives."""

import time
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from sfnetlab import runtime
from sfnetlab.bench.compare import Row

N_GALAXIES, N_FEATURES, N_LABELS, N_PERMUTATIONS = 20_000, 2048, 46, 200
DENSITY = 32 / 2048
N_CHECKED = 3
"""Features, labels and permutations that the loop does. All would take hours, and each pair takes the same time."""


def association(device: str) -> Iterator[Row]:
    """Yield a row for dense and one for CSR features: correlations per second, against SciPy's `spearmanr`.

    The reference takes one pair after another and is timed on a few of them.

    Raises
    ------
    AssertionError
        If the two do not agree.
    """
    from scipy.stats import spearmanr

    from sfnetlab.metrics.association import association_test

    rng = np.random.default_rng(0)
    dense = rng.standard_normal((N_GALAXIES, N_FEATURES)).astype(np.float32)
    sparse = sp.csr_array(np.where(rng.random(dense.shape, dtype=np.float32) < DENSITY, np.abs(dense), np.float32(0)))
    labels = dense[:, :N_LABELS] + 5 * rng.standard_normal((N_GALAXIES, N_LABELS)).astype(np.float32)
    n_correlations = N_FEATURES * N_LABELS * (N_PERMUTATIONS + 1)
    for storage, features in (("dense", dense), ("CSR", sparse)):
        started = time.perf_counter()
        test = association_test(features, labels, n_permutations=N_PERMUTATIONS, seed=0)
        ours_s = time.perf_counter() - started

        values = sp.csr_array(features[:, :N_CHECKED]).toarray()
        order = np.random.default_rng(0)
        started = time.perf_counter()
        pairs = [[spearmanr(f, label).statistic for label in labels.T[:N_CHECKED]] for f in values.T]
        null = [
            np.abs([spearmanr(f, label[rows]).statistic for label in labels.T])
            for rows in (order.permutation(N_GALAXIES) for _ in range(N_CHECKED))
            for f in values.T[:1]
        ]
        n_looped = N_CHECKED**2 + N_CHECKED * N_LABELS
        loop_s = time.perf_counter() - started
        if not np.allclose(test.rho[:N_CHECKED, :N_CHECKED], pairs, atol=1e-12, rtol=0):
            raise AssertionError("the rank correlations do not agree with the loop over pairs")
        if not np.allclose(test.null_max[:N_CHECKED, 0], np.max(null, axis=1), atol=1e-6, rtol=0):
            raise AssertionError("the permuted maxima do not agree with the loop over pairs")
        ours, reference = n_correlations / ours_s, n_looped / loop_s
        yield Row(
            name="association",
            case=f"{N_FEATURES} features ({storage}), {N_LABELS} labels, {N_PERMUTATIONS} permutations, "
            f"{N_GALAXIES} galaxies: {ours_s:.1f} s, against SciPy's pairs",
            ours=ours,
            reference=reference,
            unit="correlations/s",
            ratio=ours / reference,
            threads=runtime.n_threads(),
            device=device,
        )
