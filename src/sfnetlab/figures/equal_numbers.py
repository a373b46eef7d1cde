"""Scores of methods at equal numbers of features, beside an untrained network and permuted galaxies."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sfnetlab.figures import style

_NULLS = {"untrained": ("|", "as many features of an untrained network"), "permuted": ("x", "permuted galaxies")}


@style.paper_figure
def plot_at_equal_numbers(table: pd.DataFrame, label: str) -> Figure:
    """Draw a score of each method, a panel a number of features; the best method is on top.

    Markers are the score over runs, bars its 95 % interval over galaxies and runs (what has one run has none), small
    dots the runs. Bars across a row are as many features of an untrained network, crosses permuted galaxies.

    Parameters
    ----------
    table : DataFrame
        Columns `features, kind, seed, n, value, low, high, untrained, permuted`, a row a run and number `n` of
        features; NaN where a null is not known.
    label : str
        What the score is.

    Raises
    ------
    ValueError
        If columns or rows are missing.
    """
    wanted = ("features", "kind", "seed", "n", "value", "low", "high", *_NULLS)
    style.require_columns(table, wanted, "the table of scores at equal numbers of features")
    numbers = sorted(table["n"].unique())
    names = [str(name) for name in table.groupby("features")["value"].max().sort_values().index]
    looks = style.looks_of(table)
    kinds = table.groupby("features")["kind"].first()
    labels = [style.wrapped(style.method_name(name, str(kinds[name])), 20) for name in names]
    height_in = 1.2 + len(names) * max(0.2, *(style.legend_height_in([name]) for name in labels))
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, height_in), layout="constrained")
    axes: list[Axes] = list(fig.subplots(1, len(numbers), sharey=True, sharex=True, squeeze=False)[0])
    for ax, n in zip(axes, numbers, strict=True):
        for y, name in enumerate(names):
            runs = table[(table["n"] == n) & (table["features"] == name)]
            if len(runs):
                _draw_method(ax, y, runs, looks[name])
        ax.axvline(0, color=style.GREY, linewidth=0.6, label="_zero")
        ax.set_title(f"{int(n)} features")
        ax.set_xlabel(style.wrapped(label, 80 // len(numbers)))
        ax.grid(axis="y", linewidth=0.4, color="#DDDDDD")
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(names)), labels)
    axes[0].set_ylim(-0.6, len(names) - 0.4)
    handles = [
        Line2D([], [], color=style.BLACK, marker=marker, markersize=6, linestyle="none", label=what)
        for marker, what in _NULLS.values()
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return fig


def _draw_method(ax: Axes, y: float, runs: pd.DataFrame, look: style.MethodStyle) -> None:
    """Draw the runs of one method in one line."""
    value, *ends = style.over_runs(runs)
    low, high = np.clip(ends, -1, 1)  # no score is larger, whatever Student's t makes of few runs
    if np.isfinite(low):
        ax.plot([low, high], [y, y], color=look.color, linewidth=0.9, label="_interval")
    if len(runs) > 1:
        ax.plot(runs["value"], np.full(len(runs), y - 0.3), ".", color=look.color, markersize=2.5, label="_seeds")
    for null, (marker, _) in _NULLS.items():
        ax.plot(
            runs[null].mean(), y, color=style.BLACK, marker=marker, markersize=6, linestyle="none", label=f"_{null}"
        )
    ax.plot(value, y, color=look.color, marker=look.marker, linestyle="none", label=runs["features"].iloc[0])
