"""How two speeds are compared: timed in turns, and written as a row. The other modules say what is compared."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from sfnetlab import runtime

N_TURNS = 3
_REST_S = 0.05
"""Pause before each timing: OpenMP's threads of what ran before go on spinning for some milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison of the lab with a reference.

    The fields that may be None are None where a benchmark does not measure them.
    """

    name: str
    """The benchmark."""
    case: str
    """What is compared, in words."""
    ours: float
    """The lab's number in `unit`; a median over turns if it is a speed."""
    reference: float | None
    """The reference's number in `unit`; a median over turns if it is a speed. None where there is none to be had, for
    the reason that `case` gives."""
    unit: str
    ratio: float | None
    """`ours` over `reference`; for speeds, the median over turns of that. None where `reference` is 0 or None."""
    threads: int
    device: str
    bound_share: float | None = None
    """Our speed over a bound that is measured before and after each timing: for SAEs, the speed of the one dense
    product that no step can do without, in the same library and with the same threads."""
    reference_bound_share: float | None = None
    """The reference's speed over that bound."""
    peak_mb: float | None = None
    """Megabytes that the work added to the largest resident size of a fresh process which had loaded the libraries; on
    a GPU, what torch allocated there."""
    reference_peak_mb: float | None = None
    """The same for the reference."""
    cpu_s: float | None = None
    """Seconds of all cores that the work took."""
    reference_cpu_s: float | None = None
    """The same for the reference."""


def describe(row: Row) -> str:
    """Return a row as one line of text."""
    ours, reference = (
        "none" if n is None else f"{n:,.0f}" if abs(n) >= 1000 else f"{n:#.4g}" for n in (row.ours, row.reference)
    )
    ratio = "against" if row.ratio is None else f"{row.ratio:.2f} x"
    parts = [f"{row.name:12} {row.case:76} {ours:>9} {row.unit}", f"{ratio} the reference ({reference})"]
    if row.bound_share is not None and row.reference_bound_share is not None:
        parts.append(f"{row.bound_share:4.0%} of the bound ({row.reference_bound_share:.0%})")
    if row.peak_mb is not None and row.reference_peak_mb is not None:
        parts.append(f"{row.peak_mb:.0f} MB ({row.reference_peak_mb:.0f})")
    if row.cpu_s is not None and row.reference_cpu_s is not None:
        parts.append(f"{row.cpu_s:.1f} CPU s ({row.reference_cpu_s:.1f})")
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
    """Time two functions in turns, after one call of each to warm up, and return the row.

    Parameters
    ----------
    name, case, unit, device
        As in `Row`.
    n
        How many units, such as images or steps, one call does.
    ours, reference
        The functions.
    bound
        Measures, in `unit`, the largest speed that the machine allows at this moment.
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
