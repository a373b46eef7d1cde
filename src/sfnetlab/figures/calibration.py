"""Whether predicted quantiles hold what they say: shares of galaxies below each, and within each interval."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.metrics.quantiles import intervals_of, nominal_coverage, quantile_scores
from sfnetlab.surveys.catalog import unit_of

_LOOKS = {
    "raw": (style.VERMILION, "o", "as predicted"),
    "calibrated": (style.BLUE, "s", "calibrated on valid galaxies"),
}
TOLERANCE = 0.03
"""Half the width of the grey band, as a share of galaxies."""


def draw(findings: Findings) -> Figures:
    """Draw a figure a network whose head predicts quantiles."""
    for table in findings.typical():
        quantiles = table.read("quantiles")
        if table.head_target is not None and quantiles is not None:
            column = str(quantiles["column"].iloc[0])
            yield f"calibration-{table.name}", plot_calibration(quantiles, column, unit_of(column))


@style.paper_figure
def plot_calibration(quantiles: pd.DataFrame, column: str, unit: str, *, n_resamples: int = 1000) -> Figure:
    """Draw the share of test galaxies below each quantile against its level (left), and the coverage of intervals.

    Bars are 95 % intervals over galaxies, at the right by bootstrap; the grey band is ±3 percentage points about what
    is said. Numbers are the intervals' coverages and mean widths. These are averages: one group of galaxies may still
    be covered less than another.

    Parameters
    ----------
    quantiles : DataFrame
        Columns `id_str`, `y_true`, `level`, `raw` and `calibrated`, a row a galaxy and level, of one label column.
    column, unit : str
        The label column and its unit; "" for a pure number.
    n_resamples : int
        Bootstrap resamples of the galaxies.

    Raises
    ------
    ValueError
        If columns or rows are missing.
    """
    style.require_columns(quantiles, ("id_str", "y_true", "level", "raw", "calibrated"), "the table of quantiles")
    levels = sorted(quantiles["level"].unique())
    wide = quantiles.pivot_table(index="id_str", columns="level", values=["raw", "calibrated"])
    truth = quantiles.groupby("id_str")["y_true"].first().loc[wide.index].to_numpy()
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 3.0), layout="constrained")
    left, right = fig.subplots(1, 2)
    grid = np.linspace(0, 1, 2)
    for ax in (left, right):
        ax.fill_between(grid, grid - TOLERANCE, grid + TOLERANCE, color="#DDDDDD", linewidth=0)
        ax.plot(grid, grid, color=style.BLACK, linewidth=0.8, linestyle="--")
    names = intervals_of(levels)
    lines = []
    for i, (kind, (color, marker, label)) in enumerate(_LOOKS.items()):
        values = wide[kind][levels].to_numpy()
        below = (truth[:, None] <= values).astype(np.float64)
        error = 1.96 * np.sqrt(below.mean(axis=0) * (1 - below.mean(axis=0)) / len(truth))
        shift = 0.008 * (2 * i - 1)
        left.errorbar(
            np.array(levels) + shift, below.mean(axis=0), yerr=error, color=color, marker=marker, linestyle="none",
            elinewidth=0.9, capsize=1.6, label=label,
        )  # fmt: skip
        found = {
            score.metric: score for score in quantile_scores(truth, values, levels, n_resamples=n_resamples, seed=0)
        }
        for name in names:
            score = found[f"coverage_{name}"]
            nominal = nominal_coverage(levels, name)
            right.errorbar(
                nominal + shift, (score.low + score.high) / 2, yerr=(score.high - score.low) / 2, fmt="none",
                ecolor=color, elinewidth=0.9, capsize=1.6,
            )  # fmt: skip
            right.plot(nominal + shift, score.value, color=color, marker=marker, linestyle="none")
            width = f"{found[f'width_{name}'].value:.2f} {unit}".strip()
            lines.append(f"{name} % {kind}: {100 * score.value:.1f} %, width {width}")
    right.text(0.03, 0.97, "\n".join(lines), transform=right.transAxes, va="top", fontsize=style.SMALL_PT)
    left.set(
        xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="level of the quantile", ylabel="share of galaxies below it"
    )
    left.set_title(f"quantiles of {column} (N = {len(truth):,})")
    right.set(xlim=(0.4, 1.02), ylim=(0.4, 1.02), xlabel="nominal coverage", ylabel="share of galaxies within")
    right.set_title("central intervals")
    left.legend(loc="upper left")
    return fig
