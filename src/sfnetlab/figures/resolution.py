"""What networks lose when they are shown less of each cutout: fewer pixels, one band, no colours."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.kinds import CONTROLS, PREDICT_THE_MEAN, predicts_the_mean
from sfnetlab.methods import TRAITS
from sfnetlab.metrics.selection import chosen_on_valid
from sfnetlab.metrics.tidy import HEAD
from sfnetlab.settings import FULL_VIEW
from sfnetlab.surveys.catalog import unit_of

_COLUMNS = (
    "target",
    "column",
    "method",
    "kind",
    "k",
    "view",
    "side_px",
    "is_degraded",
    "seed",
    "probe",
    "metric",
    "value",
)
_METRICS = {"rmse": "RMSE", "nmad": "NMAD"}
_N_LABELLED = 6
_NAME_GAP = 0.05
_MOST_LINES = 120
"""Of more features the most used are drawn."""


def draw(findings: Findings) -> Figures:
    """Draw what networks of several views find: scores, surviving features, and what the views show."""
    scores, survival, views = (findings.views(name) for name in ("scores", "survival", "views"))
    if scores is None or survival is None or views is None:
        return
    names = [str(view) for view in views["view"]]
    yield "views", plot_views(findings.view_examples(), names, findings.pixel_scale_arcsec)
    for name, target in findings.targets.items():
        for column in target.columns:
            of_column = scores[(scores["target"] == name) & (scores["column"] == column)]
            if of_column.empty:
                continue
            controls = _controls(findings, name, column)
            yield f"view_scores-{name}-{column}", plot_view_scores(scores, name, column, unit_of(column), controls)
            if of_column[of_column["is_degraded"]].groupby("method")["side_px"].nunique().max() > 1:
                yield f"resolution-{name}-{column}", plot_resolution(scores, name, column, unit_of(column), controls)
    sizes = scores.drop_duplicates("view").set_index("view")
    smaller = sizes.drop(names[0]).sort_values("side_px", ascending=False, kind="stable")
    order = [names[0], *map(str, smaller.index)]
    ticks = {
        str(view): f"{row['side_px']}²" if row["is_degraded"] and view != FULL_VIEW else str(view)
        for view, row in sizes.iterrows()
    }
    yield "surviving_features", plot_surviving_features(survival, order, ticks)


def _controls(findings: Findings, target: str, column: str) -> dict[str, dict[str, float]]:
    """Return test RMSE and NMAD of each control, by the probe that is best on valid rows."""
    metrics = findings.comparison()
    assert metrics is not None
    rows = metrics[
        (metrics["target"] == target) & (metrics["column"] == column) & metrics["metric"].isin(list(_METRICS))
    ]
    controls: dict[str, dict[str, float]] = {}
    for kind in CONTROLS:
        of_kind = rows[rows["kind"] == kind]
        if of_kind.empty:
            continue
        best = chosen_on_valid(of_kind, ("kind",), ("probe",))["probe"].iloc[0]
        test = of_kind[(of_kind["split"] == "test") & (of_kind["probe"] == best)]
        name = PREDICT_THE_MEAN if predicts_the_mean(of_kind).all() else f"{TRAITS[kind].label} ({best})"
        controls[name] = {str(metric): float(value) for metric, value in test.groupby("metric")["value"].mean().items()}
    return controls


@style.paper_figure
def plot_resolution(
    scores: pd.DataFrame,
    target: str,
    column: str,
    unit: str,
    controls: Mapping[str, Mapping[str, float]],
) -> Figure:
    """Draw test RMSE and NMAD of networks that were trained on cutouts of n × n pixels, against n.

    Points are means over seeds, small dots the seeds, bars the 95 % interval over galaxies and runs; networks of one
    seed have none.

    Parameters
    ----------
    scores : DataFrame
        `interpret.views.view_scores`; rows of views that change more than the number of pixels are left out.
    target, column, unit : str
        Which target, which of its label columns, and the column's unit; "" for a pure number.
    controls : mapping
        Label to metric ("rmse", "nmad") to the level of a horizontal line.

    Raises
    ------
    ValueError
        If columns are missing, or no method has two sizes.
    """
    rows = _rows(scores, target, column)
    rows = rows[rows["is_degraded"]]
    several = rows.groupby("method")["side_px"].transform("nunique") > 1
    rows = rows[several]
    if rows.empty:
        raise ValueError(f"no method has two sizes for target {target!r}, column {column!r}")
    labels = [label for label, _, _ in _methods(rows)]
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 2.9 + style.legend_height_in(labels)), layout="constrained")
    axes = fig.subplots(1, 2, sharey=True)
    sides = sorted(rows["side_px"].unique())
    lows: list[float] = []
    highs: list[float] = []
    for ax, (metric, name) in zip(axes, _METRICS.items(), strict=True):
        curves = [
            style.Curve(
                label, look, of_method[of_method["metric"] == metric].rename(columns={"side_px": "x", "value": "y"})
            )
            for label, look, of_method in _methods(rows)
        ]
        levels = {label: values[metric] for label, values in controls.items() if metric in values}
        for i, level in enumerate(levels.values()):
            ax.axhline(level, color=style.GREY, linestyle=("-", "--", ":")[i % 3], linewidth=0.9, label="_control")
        style.draw_budget_panel(ax, curves, "pixels of a cutout")
        ax.set_xticks(sides, labels=[f"{side:g}²" for side in sides])
        ax.set_title(f"test {name}{_how(rows)}")
        lows.append(ax.dataLim.y0)
        highs += [ax.dataLim.y1, *levels.values()]
        for label, level in levels.items():
            ax.annotate(
                label, (1, level), (-3, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                ha="right", va="bottom", fontsize=style.SMALL_PT, color=style.GREY,
            )  # fmt: skip
    low, high = min(lows), max(highs)
    axes[0].set_ylim(low - 0.06 * (high - low), high + 0.09 * (high - low))
    axes[0].set_ylabel(style.with_unit(f"error of {column}", unit))
    return fig


@style.paper_figure
def plot_view_scores(
    scores: pd.DataFrame, target: str, column: str, unit: str, controls: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Draw the test RMSE of each method through each view, views in the order of their means.

    Bars, dots and lines are those of `plot_resolution`, and so are the parameters, of all views.
    """
    rows = _rows(scores, target, column)
    rows = rows[rows["metric"] == "rmse"]
    order = rows.groupby("view")["value"].mean().sort_values().index.tolist()
    methods = _methods(rows)
    height_in = (
        0.9 + (0.16 + 0.1 * len(methods)) * len(order) + style.legend_height_in(label for label, _, _ in methods)
    )
    fig = Figure(figsize=(style.COLUMN_WIDTH_IN, height_in), layout="constrained")
    ax = fig.subplots()
    for i, (label, look, of_method) in enumerate(methods):
        shift = 0.5 * (i - (len(methods) - 1) / 2) / max(len(methods), 2)
        for view, of_view in of_method.groupby("view"):
            y = order.index(str(view)) + shift
            ax.plot([of_view["low"].mean(), of_view["high"].mean()], [y, y], color=look.color, linewidth=1.0)
            ax.plot(of_view["value"], np.full(len(of_view), y), ".", color=look.color, markersize=3, zorder=1.9)
            ax.plot(of_view["value"].mean(), y, marker=look.marker, color=look.color, markersize=4)
        ax.plot([], [], marker=look.marker, color=look.color, linestyle="none", label=label)
    for i, (label, values) in enumerate(controls.items()):
        if "rmse" in values:
            linestyle = ("-", "--", ":")[i % 3]
            ax.axvline(values["rmse"], color=style.GREY, linestyle=linestyle, linewidth=0.9, label=label)
    ax.set_yticks(range(len(order)), labels=order)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_xlabel(style.with_unit(f"test RMSE of {column}", unit))
    ax.set_title(_how(rows).removeprefix(", "))
    fig.legend(loc="outside lower center", ncols=2, columnspacing=1)
    return fig


@style.paper_figure
def plot_surviving_features(survival: pd.DataFrame, views: Sequence[str], sizes: Mapping[str, str]) -> Figure:
    """Draw how well networks of other views find the features of the first view's network again, a panel a method.

    A line is a feature. The six most used have thick lines, and names where there is a k. Black is the median of all;
    the grey area is what matching permuted galaxies reaches (95 %). Values are means over seeds. The first place is
    another seed of the same view, where there is one: no view can be expected to do better.

    Parameters
    ----------
    survival : DataFrame
        `interpret.views.surviving_features`.
    views : sequence of str
        All views in the order in which they are to stand; the first is the reference.
    sizes : mapping
        View to what stands under it on the axis.

    Raises
    ------
    ValueError
        If columns or rows are missing.
    """
    style.require_columns(
        survival, ("method", "k", "view", "feature", "frequency", "correlation", "null_95"), "survival"
    )
    groups = list(survival.groupby(["method", "k"], dropna=False, sort=False))
    fig, axes = style.panel_grid(len(groups), "|correlation| with its partner", ["median"])
    for ax, ((method, k), of_method) in zip(axes, groups, strict=True):
        present = [view for view in views if (of_method["view"] == view).any()]
        values = of_method.pivot_table(index="feature", columns="view", values="correlation")[present]
        frequency = of_method.groupby("feature")["frequency"].first().sort_values(ascending=False, kind="stable")
        x = np.arange(len(present))
        null = of_method.groupby("view")["null_95"].mean()[present].to_numpy()
        ax.fill_between(x, 0, null, color="#DDDDDD", linewidth=0, step=None, label="permuted galaxies (95 %)")
        most_used = frequency.index[:_N_LABELLED]
        others = [feature for feature in frequency.index[:_MOST_LINES] if feature not in set(most_used)]
        for feature in others:
            ax.plot(x, values.loc[feature], color=style.SKY, linewidth=0.4, alpha=0.6)
        for feature in most_used:
            ax.plot(x, values.loc[feature], color=style.BLUE, linewidth=1.2)
        ax.plot(x, values.median(), color=style.BLACK, linewidth=1.6, marker="o", markersize=3, label="median feature")
        if not pd.isna(k):
            _name_at_start(ax, values.loc[most_used, present[0]])
        ax.set_xticks(
            x,
            labels=[
                f"{sizes.get(view, view)}" if i or view != views[0] else f"{sizes.get(view, view)},\nother seed"
                for i, view in enumerate(present)
            ],
        )
        ax.set_xlim(-0.35, len(present) - 0.9)
        ax.set_ylim(0, 1.02)
        ax.set_title(f"{method}" if pd.isna(k) else f"{method} k = {k}")
        ax.set_xlabel("network of view")
    style.share_legend(fig, axes)
    return fig


@style.paper_figure
def plot_views(shown: NDArray[np.uint8], names: Sequence[str], pixel_scale_arcsec: float | None) -> Figure:
    """Draw a few galaxies (columns) as each view (rows) shows them.

    Parameters
    ----------
    shown : ndarray of uint8, shape (n_views, n_examples, side, side, 3)
        Row 0 of an image is north, column 0 east.
    names : sequence of str, length n_views
        What the views are called.
    pixel_scale_arcsec : float or None
        Arcseconds a pixel; None draws no scale bar.

    Raises
    ------
    ValueError
        If images are not uint8 RGB.
    """
    style.require_cutouts(shown, 5)
    n_rows, n_columns = shown.shape[:2]
    fig = Figure(figsize=(style.COLUMN_WIDTH_IN, style.COLUMN_WIDTH_IN * n_rows / (n_columns + 0.9) + 0.05))
    ax = fig.add_axes((0.9 / (n_columns + 0.9), 0, n_columns / (n_columns + 0.9), 1))
    for i, j in np.ndindex(n_rows, n_columns):
        style.draw_cutout(ax, shown[i, j], j, i)
    for edge in range(1, n_columns):
        ax.axvline(edge, color="white", linewidth=1.5)
    for edge in range(1, n_rows):
        ax.axhline(edge, color="white", linewidth=1.5)
    for i, name in enumerate(names):
        ax.text(-0.05, i + 0.5, name, ha="right", va="center", fontsize=style.SMALL_PT)
    ax.set(xlim=(0, n_columns), ylim=(n_rows, 0))
    ax.set_axis_off()
    style.draw_compass(ax, 0, 0)
    if pixel_scale_arcsec is not None:
        style.draw_scale_bar(ax, 0, 0, style.field_of(pixel_scale_arcsec, shown[0, 0]))
    return fig


def _rows(scores: pd.DataFrame, target: str, column: str) -> pd.DataFrame:
    style.require_columns(scores, _COLUMNS, "the scores of views")
    rows = scores[(scores["target"] == target) & (scores["column"] == column)]
    if rows.empty:
        raise ValueError(f"the scores of views have no rows of target {target!r}, column {column!r}")
    return rows


def _how(rows: pd.DataFrame) -> str:
    return ", mean over 8 symmetries" if (rows["probe"] != HEAD).all() else ""


def _methods(rows: pd.DataFrame) -> list[tuple[str, style.MethodStyle, pd.DataFrame]]:
    """Return label, look and rows of each method and k."""
    methods = []
    for (method, kind, k), of_method in rows.groupby(["method", "kind", "k"], dropna=False, sort=False):
        peers = rows.loc[rows["kind"] == kind, "method"].unique()
        label = style.method_name(str(method), str(kind))
        methods.append(
            (label if pd.isna(k) else f"{label}, k = {k}", style.method_style(str(method), str(kind), peers), of_method)
        )
    return methods


def _name_at_start(ax: Axes, values: "pd.Series[float]") -> None:
    """Write the names of features left of their lines, moved apart where they would overlap."""
    order = values.sort_values()
    stack = _NAME_GAP * np.arange(len(order))
    placed = np.minimum(np.asarray(isotonic_regression(order.to_numpy() - stack).x), 1.0 - stack[-1]) + stack
    for feature, y in zip(order.index, placed, strict=True):
        ax.text(-0.06, y, str(feature), ha="right", va="center", fontsize=style.SMALL_PT - 1, color=style.BLUE)
