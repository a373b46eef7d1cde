"""How well dictionaries and components reconstruct embeddings: test FVU against active and against kept features."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, dictionaries
from sfnetlab.figures.kinds import COMPONENTS, DICTIONARIES, NULL_DICTIONARIES

_AXES_WIDTH_PT = 210.0
"""About what the legend leaves of the figure's width."""


def draw(findings: Findings) -> Figures:
    """Draw all dictionaries and principal components in one figure, where there is a dictionary.

    What reconstructions from few features explain is known of the typical table of each.
    """
    table = findings.gathered("reconstruction")
    if table is not None and dictionaries(findings):
        is_prefix = table["is_whole"].eq(False)  # components have no such column: it is missing
        is_shown = table["kind"].isin((*DICTIONARIES, *COMPONENTS)) & ~is_prefix
        kept = findings.gathered("explained_variance", findings.typical())
        if kept is not None:
            kept = kept[kept["features"].isin(table.loc[is_shown, "features"])]
        yield from style.drawn("fvu_vs_l0", plot_fvu_vs_l0, table[is_shown], kept)


@style.paper_figure
def plot_fvu_vs_l0(table: pd.DataFrame, kept: pd.DataFrame | None = None) -> Figure:
    """Draw the fraction of variance unexplained on test rows against active latents: SAEs, null arms (grey) and PCA.

    At the right, with `kept`, is that of reconstructions from the first features alone, against their number: PCA by
    number, latents by frequency, those of nested dictionaries as these have them; of one k of each.

    Points are means over the seeds of one k, small dots the seeds. L0 is measured where the table has it, because a
    threshold holds k only on average; PCA's is its number of components. FVU is about column means: 1 (thin line) is
    what predicting the means achieves. The axes are logarithmic and span everything but PCA, whose curve is cut there.
    What is 0 (L0 of a dictionary that is silent, FVU of all components) has no place on them. The legend is in the
    order of the curves at their right ends.

    Parameters
    ----------
    table : DataFrame
        Columns `features, kind, k, seed, split, fvu` and perhaps `l0` (mean active latents of a row of the split; NaN:
        k is taken). Rows of other splits than "test" are left out.
    kept : DataFrame, optional
        Columns `features, kind, k, n_components, explained_variance` (1 - FVU).

    Raises
    ------
    ValueError
        If columns or test rows are missing, or `k`, `l0` or `fvu` is negative or not finite.
    """
    style.require_columns(table, ("features", "kind", "k", "seed", "split", "fvu"), "the FVU table")
    rows = table[table["split"] == "test"].astype({"k": float, "fvu": float})
    if rows.empty:
        raise ValueError(f"the FVU table has no test rows; its splits are {sorted(table['split'].unique())}")
    rows = rows.assign(x=rows["l0"].astype(float).fillna(rows["k"]) if "l0" in rows else rows["k"])
    if not (rows["k"] > 0).all() or not (rows[["x", "fvu"]] >= 0).all(axis=None):
        raise ValueError("k must be positive, L0 and fvu finite and 0 or more, in every test row of the FVU table")
    rows = rows[(rows["x"] > 0) & (rows["fvu"] > 0)]
    if rows.empty:
        raise style.EmptyFigureError("the FVU table has no test row with an active latent and fvu above 0")
    is_framed = ~rows["kind"].isin(COMPONENTS)
    framed = rows[is_framed] if is_framed.any() else rows
    x_limits = framed["x"].min() / 1.25, framed["x"].max() * 1.25
    means = rows.groupby(["features", "kind", "k"])[["x", "fvu"]].mean().reset_index().sort_values("x")
    height_at_end = {
        str(name): np.interp(np.log(x_limits[1]), np.log(of_method["x"]), np.log(of_method["fvu"]))
        for name, of_method in means.groupby("features")
    }
    looks = style.looks_of(rows)
    labels = {
        str(name): style.wrapped(style.method_name(str(name), str(kind)), 28)
        for name, kind in rows.groupby("features")["kind"].first().items()
    }
    height_in = max(3.4, 0.3 + style.legend_height_in(labels.values()))
    if kept is not None:  # components of which there are as many as columns leave nothing, and have no place here
        kept = kept[kept["features"].isin(rows["features"])]
    has_kept = kept is not None and len(kept) > 0
    fig = Figure(figsize=(style.PAGE_WIDTH_IN * (1 if has_kept else 0.75), height_in), layout="constrained")
    ax, *right = fig.subplots(1, 2 if has_kept else 1, squeeze=False, sharey=True)[0]
    ax.set(xscale="log", yscale="log", xlabel="active latents per row (L0), or components")
    ax.set_ylabel("test FVU (fraction of variance)")
    ax.axhline(1, color=style.GREY, linewidth=0.6, label="_means")
    handles = [
        _draw(ax, labels[name], means[means["features"] == name], rows[rows["features"] == name], looks[name])
        for name in sorted(height_at_end, key=lambda name: -height_at_end[name])
    ]
    ax.set_xlim(*x_limits)
    ax.set_ylim(framed["fvu"].min() / 1.25, 1.25 * max(1, framed["fvu"].max()))
    _label_ticks(ax, sorted(set(framed["k"])))
    if kept is not None and has_kept:
        _draw_kept(right[0], kept, looks)
    (*_, last) = fig.axes
    last.legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), borderaxespad=0)
    return fig


def _draw_kept(ax: Axes, kept: pd.DataFrame, looks: dict[str, style.MethodStyle]) -> None:
    """Draw what the first features alone leave unexplained, k in the title where all have the same."""
    fvu = kept.assign(fvu=1 - kept["explained_variance"])
    fvu = fvu[fvu["fvu"] > 0]
    for name, of_method in fvu.groupby("features"):
        mean = of_method.groupby("n_components")["fvu"].mean()
        look = looks[str(name)]
        ax.plot(mean.index, mean, color=look.color, marker=look.marker, linestyle=look.linestyle, markersize=3)
    ax.axhline(1, color=style.GREY, linewidth=0.6, label="_means")
    ks = kept["k"].dropna().unique()
    ax.set(xscale="log", xlabel="features kept in all" + (f" (k = {ks[0]:g})" if len(ks) == 1 else ""))
    ax.xaxis.set_major_locator(LogLocator(base=4, numticks=20))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def _draw(ax: Axes, label: str, means: pd.DataFrame, rows: pd.DataFrame, look: style.MethodStyle) -> Line2D:
    is_null = rows["kind"].iloc[0] in NULL_DICTIONARIES
    (line,) = ax.plot(
        means["x"], means["fvu"], color=look.color, marker=look.marker, linestyle=look.linestyle, zorder=2.5,
        markerfacecolor="white" if is_null else look.color, label=label,
    )  # fmt: skip
    several = rows[rows.groupby("k")["seed"].transform("nunique") > 1]
    ax.plot(
        several["x"], several["fvu"], linestyle="none", marker="o", markersize=1.8, markeredgewidth=0,
        color=look.color, alpha=0.6, zorder=2.4, label="_seeds",
    )  # fmt: skip
    return line


def _label_ticks(ax: Axes, budgets: list[float]) -> None:
    """Set ticks at the budgets asked for, labelled as far as labels fit, and at 1, 2 and 5 of each decade of FVU."""
    low, high = ax.get_xlim()
    octave_pt = _AXES_WIDTH_PT / float(np.log2(high / low))
    labelled = style.labelled_budgets(budgets, octave_pt)
    ax.set_xticks(labelled, labels=[f"{budget:g}" for budget in labelled])
    ax.set_xticks(budgets, minor=True)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
