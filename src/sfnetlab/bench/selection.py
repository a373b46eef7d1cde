"""Speed of forward selection."""

from collections.abc import Iterator

import numpy as np

from sfnetlab.bench.compare import Row, compare


def selection(device: str) -> Iterator[Row]:
    """Yield one row: forward selections per second, against a loop over least squares.

    Raises
    ------
    AssertionError
        If the two do not choose the same features.
    """
    from sfnetlab.metrics.selection import select_forward

    rng = np.random.default_rng(0)
    n, d, k = 1000, 64, 4
    X = rng.standard_normal((n, d))
    Y = X[:, :6] @ rng.standard_normal((6, 1)) + rng.standard_normal((n, 1))

    def loop() -> list[int]:
        chosen: list[int] = []
        for _ in range(k):
            rest = [j for j in range(d) if j not in chosen]
            columns = [np.column_stack([np.ones(n), X[:, [*chosen, j]]]) for j in rest]
            losses = [float(np.linalg.lstsq(design, Y)[1].sum()) for design in columns]
            chosen.append(rest[int(np.argmin(losses))])
        return chosen

    if select_forward(X, Y, k).tolist() != loop():
        raise AssertionError("forward selection does not agree with the loop over least squares")
    case = f"best {k} of {d} features of {n} rows, against a loop over least squares"
    yield compare("selection", case, "selections/s", 1, lambda: select_forward(X, Y, k), loop, device)
