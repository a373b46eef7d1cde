"""A comparison of two speeds: windows in turns, a row with the ratio. What is compared stands in the other modules."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from sfnetlab import runtime

N_TURNS = 3
_REST_S = 0.05
"""Before each window: OpenMP's threads of what ran before go on spinning for some milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: `ours` and `reference` in `unit`, and `ratio`, ours over theirs (None where theirs is 0).

    Of speeds all three are medians over turns.

    `bound_share` and `reference_bound_share` are the rates over that of a bound (for SAEs: the one dense product that
    no step can do without, by the same library on the same threads), which is measured before and after each window.
    `peak_mb` and `reference_peak_mb` are what the work added to the largest resident size of a fresh process that had
    loaded the libraries, on a GPU what torch allocated there. None where a benchmark does not measure them.
    """

    name: str
    case: str
    ours: float
    reference: float
    unit: str
    ratio: float | None
    threads: int
    device: str
    bound_share: float | None = None
    reference_bound_share: float | None = None
    peak_mb: float | None = None
    reference_peak_mb: float | None = None


def describe(row: Row) -> str:
    ours, reference = (f"{n:,.0f}" if abs(n) >= 1000 else f"{n:#.4g}" for n in (row.ours, row.reference))
    ratio = "against" if row.ratio is None else f"{row.ratio:.2f} x"
    parts = [f"{row.name:12} {row.case:76} {ours:>9} {row.unit}", f"{ratio} the reference ({reference})"]
    if row.bound_share is not None and row.reference_bound_share is not None:
        parts.append(f"{row.bound_share:4.0%} of the bound ({row.reference_bound_share:.0%})")
    if row.peak_mb is not None and row.reference_peak_mb is not None:
        parts.append(f"{row.peak_mb:.0f} MB ({row.reference_peak_mb:.0f})")
    return ", ".join([*parts, f"{row.threads} threads", row.device])


def compare(
    name: str,
    case: str,
    unit: str,
    n: int,
    ours: Callable[[], object],
    reference: Callable[[], object],
    device: str,
    *,
    bound: Callable[[], float] | None = None,
) -> Row:
    """Time both in turns, after one warm-up each; `n` is how many units one call does.

    `bound` measures, in `unit`, what the machine could do at this moment.
    """
    functions = {"ours": ours, "reference": reference}
    for function in functions.values():
        function()
    rates: dict[str, list[float]] = {which: [] for which in functions}
    shares: dict[str, list[float]] = {which: [] for which in functions}
    for _ in range(N_TURNS):
        before = bound() if bound else None
        for which, function in functions.items():
            time.sleep(_REST_S)
            started = time.perf_counter()
            function()
            rate = n / (time.perf_counter() - started)
            rates[which].append(rate)
            if bound and before is not None:
                after = bound()
                shares[which].append(2 * rate / (before + after))
                before = after
    ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates["reference"], strict=True))
    return Row(
        name=name,
        case=case,
        unit=unit,
        ours=statistics.median(rates["ours"]),
        reference=statistics.median(rates["reference"]),
        ratio=ratio,
        threads=runtime.n_threads(),
        device=device,
        bound_share=statistics.median(shares["ours"]) if bound else None,
        reference_bound_share=statistics.median(shares["reference"]) if bound else None,
    )
