"""Speed of ridge regression over a path of penalties."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sfnetlab.bench.compare import Row, compare

N_ROWS, N_VALID, N_FEATURES, N_LABELS, N_PENALTIES = 100_000, 10_000, 512, 10, 100
REFERENCE_PENALTIES = 2
"""Penalties that the loop does: each takes it the same time."""


def ridge_path(device: str) -> Iterator[Row]:
    """Yield one row: penalties per second, with their errors on valid rows, against a loop over scikit-learn's Ridge.

    The lab does all penalties from one decomposition. The loop gets scikit-learn's fastest dense solver and
    standardised float64 features, and does `REFERENCE_PENALTIES` of the penalties.

    Raises
    ------
    AssertionError
        If the errors do not agree.
    """
    from sklearn.linear_model import Ridge

    from sfnetlab.probes.ridge import ridge_path

    rng = np.random.default_rng(0)
    x = rng.standard_normal((N_ROWS + N_VALID, N_FEATURES), dtype=np.float32)
    y = x @ rng.standard_normal((N_FEATURES, N_LABELS), dtype=np.float32) + rng.standard_normal((len(x), N_LABELS))
    parts = (x[:N_ROWS], y[:N_ROWS], x[N_ROWS:], y[N_ROWS:])
    alphas = np.logspace(-7, 3, N_PENALTIES) * N_ROWS
    every = N_PENALTIES // REFERENCE_PENALTIES
    mean, sd = parts[0].mean(axis=0, dtype=np.float64), parts[0].std(axis=0, dtype=np.float64)
    train, valid = (parts[0] - mean) / sd, (parts[2] - mean) / sd

    def loop() -> list[NDArray[np.float64]]:
        models = (Ridge(alpha=alpha, solver="cholesky", copy_X=False).fit(train, parts[1]) for alpha in alphas[::every])
        return [np.mean((model.predict(valid) - parts[3]) ** 2, axis=0) for model in models]

    def ours() -> NDArray[np.float64]:
        return ridge_path(*parts, alphas)[1]

    if not np.allclose(ours()[::every], loop(), rtol=1e-6):
        raise AssertionError("the ridge path does not agree with scikit-learn's Ridge")
    case = f"{N_PENALTIES} penalties, {N_LABELS} labels, {N_ROWS} x {N_FEATURES}, against scikit-learn's loop"
    row = compare("ridge-path", case, "penalties/s", N_PENALTIES, ours, loop, device)
    # the reference does fewer penalties in a call than `compare` counts
    share = len(alphas[::every]) / N_PENALTIES
    assert row.reference is not None
    yield replace(row, reference=row.reference * share, ratio=None if row.ratio is None else row.ratio / share)
