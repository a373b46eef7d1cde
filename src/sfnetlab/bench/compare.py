"""A comparison of two speeds: windows in turns, a row with the ratio. What is compared stands in the other modules."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from sfnetlab import runtime

N_TURNS = 3


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. `ours` and `reference` are rates in `unit`, medians over turns; `ratio` is ours over theirs.

    `bound_share` and `reference_bound_share` are the rates over that of a bound (for SAEs: the one dense product that
    no step can do without, by the same library on the same threads), which is measured before and after each window.
    `peak_mb` and `reference_peak_mb` are the largest resident sizes of fresh processes that did nothing else, on a GPU
    what torch allocated there. None where a benchmark does not measure them.
    """

    name: str
    case: str
    ours: float
    reference: float
    unit: str
    ratio: float
    threads: int
    device: str
    bound_share: float | None = None
    reference_bound_share: float | None = None
    peak_mb: float | None = None
    reference_peak_mb: float | None = None


def describe(row: Row) -> str:
    parts = [
        f"{row.name:12} {row.case:58} {row.ours:10.1f} {row.unit}",
        f"{row.ratio:6.2f} x the reference ({row.reference:.1f})",
    ]
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
    peaks_mb: tuple[float, float] | None = None,
) -> Row:
    """Time both in turns, after one warm-up each; `n` is how many units one call does.

    `bound` measures, in `unit`, what the machine could do at this moment; `peaks_mb` are ours and the reference's.
    """
    functions = {"ours": ours, "reference": reference}
    for function in functions.values():
        function()
    rates: dict[str, list[float]] = {which: [] for which in functions}
    shares: dict[str, list[float]] = {which: [] for which in functions}
    for _ in range(N_TURNS):
        before = bound() if bound else None
        for which, function in functions.items():
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
        peak_mb=peaks_mb[0] if peaks_mb else None,
        reference_peak_mb=peaks_mb[1] if peaks_mb else None,
    )
