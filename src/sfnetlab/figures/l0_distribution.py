"""How many latents are active on a row: the distribution over test rows of each dictionary, beside the k aimed at."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, dictionaries

_QUANTILES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
_AXES_WIDTH_PT = 220.0
"""About what the names leave of the figure's width."""


def draw(findings: Findings) -> Figures:
    """Draw the dictionaries in one figure whose rows differ in how many latents are active: of top-k there are k."""
    table = findings.gathered("l0", dictionaries(findings))
    if table is not None:
        counted = table[table["n_rows"] > 0]
        varies = table["features"].isin(counted.groupby(["features", "k"]).filter(_varies)["features"])
        if varies.any():
            yield "l0_distribution", plot_l0_distribution(table[varies])


def _varies(rows: pd.DataFrame) -> bool:
    """Return whether rows of one dictionary are counted at two or more numbers of active latents."""
    return bool(rows["l0"].min() < rows["l0"].max())


@style.paper_figure
def plot_l0_distribution(table: pd.DataFrame) -> Figure:
    """Draw how many latents of a row are active (L0), a line a dictionary, by the k aimed at and then by name.

    The marker is the mean, the vertical bar k. The thin line reaches from the 5 % to the 95 % quantile, the pale bar
    from quartile to quartile, with a tick at the median. The axis is
    logarithmic, but linear from 0 to 1.

    Parameters
    ----------
    table : DataFrame
        Columns `features`, `kind`, `k`, `l0` and `n_rows` (rows with so many active latents). The seeds of one
        `features` and `k` are taken together.

    Raises
    ------
    ValueError
        If columns or rows are missing, `k` is below 1 or NaN, or a dictionary was counted on no row.
    """
    style.require_columns(table, ("features", "kind", "k", "l0", "n_rows"), "the table of L0")
    if not (table["k"] >= 1).all():
        raise ValueError("k must be 1 or more in every row of the table of L0")
    counts = table.groupby(["k", "features", "l0"])["n_rows"].sum()
    totals = counts.groupby(["k", "features"]).sum()
    if not (totals > 0).all():
        raise ValueError(
            f"no rows are counted in the table of L0 for {list(totals.index[~(totals > 0)])} (k, features)"
        )
    looks = style.looks_of(table)
    kinds = table.groupby("features")["kind"].first()
    labels = [style.wrapped(f"{style.method_name(name, str(kinds[name]))}, k = {k:g}", 30) for k, name in totals.index]
    height_in = 1.0 + sum(max(0.17, style.legend_height_in([label])) for label in labels)
    fig = Figure(figsize=(style.PAGE_WIDTH_IN * 0.75, height_in), layout="constrained")
    ax = fig.subplots()
    lowest, highest = float(table["k"].min()), float(table["k"].max())
    for y, (k, name) in enumerate(totals.index):
        n_of_l0, look = counts.loc[k, name], looks[name]
        l0, n_rows = n_of_l0.index.to_numpy(dtype=float), n_of_l0.to_numpy(dtype=float)
        low, lower, median, upper, high = l0[np.searchsorted(n_rows.cumsum(), _QUANTILES * n_rows.sum())]
        mean = float(np.average(l0, weights=n_rows))
        ax.plot([low, high], [y, y], color=look.color, linewidth=0.9)
        ax.plot([lower, upper], [y, y], color=look.color, linewidth=4.5, alpha=0.4, solid_capstyle="butt")
        ax.plot(median, y, color=look.color, marker="|", markersize=4.5, markeredgewidth=1.6)
        ax.plot(k, y, color=style.BLACK, marker="|", markersize=9)
        ax.plot(mean, y, color=look.color, marker=look.marker, label=name)
        lowest, highest = min(lowest, low, mean), max(highest, high, mean)
    ax.set_xscale("symlog", base=2, linthresh=1, linscale=0.6)
    ax.set_xlim(lowest / 1.25 if lowest >= 1 else -0.1, highest * 1.25)
    octaves = float(np.log2(1.6 * highest / max(lowest, 1))) + (lowest < 1)
    powers = {2.0**i for i in range(int(np.log2(highest)) + 1) if 2**i >= lowest}
    ticks = style.labelled_budgets(sorted(powers | set(table["k"].astype(float))), _AXES_WIDTH_PT / octaves)
    ax.set_xticks([0, *ticks] if lowest < 1 else ticks)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("active latents per test row (L0)")
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(linewidth=0.4, color="#DDDDDD")
    ax.set_axisbelow(True)
    quartiles = Line2D(
        [], [], color="#C2C2C2", linewidth=4.5, marker="|", markersize=4.5, markeredgecolor=style.GREY,
        markeredgewidth=1.6, label="quartiles, median",
    )  # fmt: skip
    handles = [
        Line2D([], [], color=style.GREY, linewidth=0.9, label="5 % to 95 %"),
        quartiles,
        Line2D([], [], color=style.GREY, marker="o", linestyle="none", label="mean"),
        Line2D([], [], color=style.BLACK, marker="|", markersize=9, linestyle="none", label="k aimed at"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=1.2, handlelength=2)
    return fig
