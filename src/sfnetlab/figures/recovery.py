"""How well each method recovers the factors that made the mock galaxies."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings

_ALL = "all"
_NULLS = {"untrained": "|", "permuted": "x"}
_COLUMNS = ("features", "kind", "factor", "apart", "metric", "k", "n_drawn", "value")


def draw(findings: Findings) -> Figures:
    """Draw all methods on a survey whose factors are known, in a figure each for factors, scores and absorption."""
    typical = findings.typical()
    drawn = {(table.spec.features, table.spec.k) for table in typical}
    every_seed = [table for table in findings.tables if (table.spec.features, table.spec.k) in drawn]
    recovery, absorption = findings.gathered("recovery", every_seed), findings.gathered("absorption", typical)
    if recovery is not None:
        recovery = recovery.drop(columns="k").rename(columns={"n_features_used": "k"})
        yield "recovery_of_factors", plot_recovery_matrix(recovery, 1)
        yield from style.drawn("recovery_scores", plot_recovery_scores, recovery)
    if absorption is not None and absorption["absorption"].notna().any():
        yield "absorption", plot_absorption(absorption)


@style.paper_figure
def plot_recovery_matrix(table: pd.DataFrame, k: int) -> Figure:
    """Draw the R² of each factor from the best `k` features of each method, the best known factor on top.

    Beneath the line stand the factors that count for no score: repeats of others, and angles that training turns.

    Parameters
    ----------
    table : DataFrame
        `interpret.recovery.recover_factors` with the columns `features` and `kind` added; means over seeds are drawn.
    k : int
        Number of features.

    Raises
    ------
    ValueError
        If columns are missing, or no row has the metric "r2" at this `k`.
    """
    style.require_columns(table, _COLUMNS, "the table of recovery")
    rows = table[(table["metric"] == "r2") & (table["k"] == k) & (table["factor"] != _ALL) & table["n_drawn"].isna()]
    if rows.empty:
        raise ValueError(
            f"the table of recovery has no r2 at k = {k}; it has k = {sorted({int(k) for k in table['k'].dropna()})}"
        )
    kinds = rows.groupby("features", sort=False)["kind"].first()
    shown = rows.pivot_table(index="factor", columns="features", values="value", dropna=False)[list(kinds.index)]
    ordered = shown.max(axis=1).sort_values(ascending=False).index
    is_apart = ordered.isin(rows.loc[rows["apart"] != "", "factor"])
    shown = shown.loc[[*ordered[~is_apart], *ordered[is_apart]]]
    labels = [style.wrapped(style.method_name(str(name), str(kind)), 16) for name, kind in kinds.items()]
    n_factors, n_methods = shown.shape
    width_in = min(2.6 + 0.42 * n_methods, style.PAGE_WIDTH_IN)
    fig = Figure(figsize=(max(width_in, style.COLUMN_WIDTH_IN), 1.3 + 0.17 * n_factors), layout="constrained")
    ax = fig.add_subplot()
    image = ax.imshow(np.clip(shown, 0, 1), cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(shown.to_numpy()):
        text = "–" if np.isnan(value) else f"{max(value, 0.0):.2f}"
        color = "black" if np.isnan(value) or value > 0.6 else "white"
        ax.text(column, row, text, ha="center", va="center", fontsize=style.SMALL_PT - 0.5, color=color)
    ax.set_xticks(range(n_methods), labels, rotation=90)
    ax.set_yticks(range(n_factors), [str(name).replace("_", " ") for name in shown.index])
    ax.tick_params(length=0)
    if is_apart.any():
        ax.axhline((~is_apart).sum() - 0.5, color=style.BLACK, linewidth=0.8)
    noun = "feature" if k == 1 else f"{k} features"
    fig.colorbar(image, ax=ax, label=f"R² from the best {noun}, test galaxies", pad=0.02)
    return fig


@style.paper_figure
def plot_recovery_scores(table: pd.DataFrame) -> Figure:
    """Draw the mean correlation of matched features and factors (MCC) at equal numbers of features, a panel a number.

    A row is a method, the best on top. Markers are means over seeds, bars the 95 % interval over test galaxies, draws
    of features and runs (what has one run has none), small dots the seeds. Bars across a row are as many features of an
    untrained network, crosses permuted galaxies.

    Parameters
    ----------
    table : DataFrame
        `recovery` of interpret-features (`interpret.recovery.recover_draws` beside its nulls) with the columns
        `features`, `kind` and `seed` added.

    Raises
    ------
    ValueError
        If columns are missing; `EmptyFigureError` if no table has enough features.
    """
    wanted = (*_COLUMNS, "seed", "low", "high", "untrained", "permuted")
    style.require_columns(table, wanted, "the table of recovery")
    rows = table[(table["factor"] == _ALL) & (table["metric"] == "correlation") & table["n_drawn"].notna()]
    if rows.empty:
        raise style.EmptyFigureError("no table has enough features to recover factors at equal numbers")
    numbers = sorted(rows["n_drawn"].unique())
    best = rows.groupby("features")["value"].max().sort_values()
    kinds = rows.groupby("features")["kind"].first()
    names = [str(name) for name in best.index]
    labels = [style.wrapped(style.method_name(name, str(kinds[name])), 20) for name in names]
    height_in = 1.1 + len(names) * max(0.19, *(style.legend_height_in([label]) for label in labels))
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, height_in), layout="constrained")
    axes: list[Axes] = list(fig.subplots(1, len(numbers), sharey=True, squeeze=False)[0])
    for ax, n in zip(axes, numbers, strict=True):
        for y, name in enumerate(names):
            runs = rows[(rows["n_drawn"] == n) & (rows["features"] == name)]
            if runs.empty:
                continue
            kind = str(kinds[name])
            look = style.method_style(name, kind, [str(peer) for peer in kinds.index[kinds == kind]])
            value, low, high = style.over_runs(runs)
            if np.isfinite(low):
                ax.plot([low, high], [y, y], color=look.color, linewidth=0.9, label="_interval")
            if len(runs) > 1:
                ax.plot(
                    runs["value"], np.full(len(runs), y - 0.3), ".", color=look.color, markersize=2.5, label="_seeds"
                )
            for null, marker in _NULLS.items():
                ax.plot(
                    runs[null].mean(), y, color=style.BLACK, marker=marker, markersize=6, linestyle="none",
                    label=f"_{null}",
                )  # fmt: skip
            ax.plot(value, y, color=look.color, marker=look.marker, linestyle="none", label=name)
        ax.set(xlim=(-0.02, min(1.02, 1.2 * float(rows["value"].max()))), xlabel=f"MCC of {int(n)} features")
        ax.grid(axis="y", linewidth=0.4, color="#DDDDDD")
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(names)), labels)
    axes[0].set_ylim(-0.6, len(names) - 0.4)
    handles = [
        Line2D([], [], color=style.BLACK, marker=marker, markersize=6, linestyle="none", label=label)
        for marker, label in zip(_NULLS.values(), ("untrained network", "permuted galaxies"), strict=True)
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return fig


@style.paper_figure
def plot_absorption(table: pd.DataFrame) -> Figure:
    """Draw how much more often a label's feature is silent where a more special label holds; chance is 0.

    A row is two labels, a marker a method with its 95 % interval over galaxies, both means over seeds. Methods whose
    features do not detect their labels have no marker.

    Parameters
    ----------
    table : DataFrame
        `interpret.recovery.family_absorption` with the columns `features` and `kind` added.

    Raises
    ------
    ValueError
        If columns are missing, or there is no number.
    """
    style.require_columns(
        table, ("features", "kind", "parent", "child", "absorption", "low", "high"), "the table of absorption"
    )
    known = table.dropna(subset=["absorption"])
    if known.empty:
        raise ValueError("the table of absorption has no number")
    labels = list(dict.fromkeys(zip(known["child"], known["parent"], strict=True)))
    kinds = known.groupby("features", sort=False)["kind"].first()
    legend_in = style.legend_height_in(map(str, kinds.index))
    fig = Figure(
        figsize=(style.COLUMN_WIDTH_IN, 0.9 + len(labels) * (0.12 + 0.09 * len(kinds)) + legend_in),
        layout="constrained",
    )
    ax = fig.add_subplot()
    for rank, (name, kind) in enumerate(kinds.items()):
        look = style.method_style(str(name), str(kind), map(str, kinds.index[kinds == kind]))
        of_method = known[known["features"] == name].groupby(["child", "parent"])[["absorption", "low", "high"]].mean()
        y = [labels.index(pair) + 0.7 * ((rank + 0.5) / len(kinds) - 0.5) for pair in of_method.index]
        label = style.method_name(str(name), str(kind))
        value, low, high = of_method.to_numpy(dtype=np.float64).T
        ax.errorbar(
            value,
            y,
            xerr=(value - low, high - value),
            fmt=look.marker,
            color=look.color,
            markersize=4,
            elinewidth=0.8,
            label=label,
        )
    for edge in range(1, len(labels)):
        ax.axhline(edge - 0.5, color="#DDDDDD", linewidth=0.6)
    ax.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(labels)), labels=[f"{child} in {parent}".replace("_", " ") for child, parent in labels])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_xlabel("absorption (difference of shares)")
    fig.legend(loc="outside lower center", ncols=2, columnspacing=1)
    return fig
