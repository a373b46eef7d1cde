"""Predicted against true values of one label column: a panel a method, its residuals beneath."""

from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, TableFindings, best_on_valid
from sfnetlab.figures.kinds import predicts_the_mean
from sfnetlab.metrics.regression import bias, nmad, rmse
from sfnetlab.probes import shown_probe
from sfnetlab.surveys.catalog import unit_of

_N_DOTS = 1500
"""Beyond this many galaxies dots hide each other, and counts are drawn instead."""
_N_BINS = 48
_RESIDUAL_SHARE = 2.4
"""Height of a panel over that of its residuals; bins keep their size."""

_N_TICKS = {1: 5, 2: 6, 3: 5, 4: 4}
"""Intervals between ticks that leave room for six digits, by panels in a row."""

_ROLES = ("control", "embedding", "decomposition", "network")

_Range = tuple[float, float]


def draw(findings: Findings) -> Figures:
    """Draw a figure for each label column, of the method of each role that is best on valid galaxies."""
    for name, target in findings.targets.items():
        shown = [best for role in _ROLES if (best := _best_of(findings, role, name)) is not None]
        for column in target.columns:
            predictions = {label: rows for table in shown for label, rows in _predictions(table, name, column)}
            if predictions:
                y_true = next(iter(predictions.values()))["y_true"]
                y_pred = {label: rows["y_pred"].loc[y_true.index].to_numpy() for label, rows in predictions.items()}
                figure = plot_predicted_vs_true(y_true.to_numpy(), y_pred, column, unit_of(column))
                yield f"predicted_vs_true-{name}-{column}", figure


def _best_of(findings: Findings, role: str, target: str) -> TableFindings | None:
    """Return the table of a role that stands for it; the mean is no method."""
    tables = [table for table in findings.typical() if table.traits.role == role]
    predicted = ((table, table.need("predictions")) for table in tables)
    has_features = [table for table, rows in predicted if not predicts_the_mean(rows).all()]
    return best_on_valid(findings, has_features, target)


def _predictions(table: TableFindings, target: str, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a name and test predictions by `id_str`: of a network's own head, or on all features."""
    rows = table.need("predictions")
    rows = rows[(rows["target"] == target) & (rows["column"] == column)]
    if rows.empty:
        return
    probe = shown_probe(set(rows["probe"]))
    rows = rows[rows["probe"] == probe]
    rows = rows[rows["n_features_used"] == rows["n_features_used"].max()]
    yield f"{table.label}, {probe}", rows.set_index("id_str")


@style.paper_figure
def plot_predicted_vs_true(
    y_true: NDArray[np.floating], predictions: Mapping[str, NDArray[np.floating]], column: str, unit: str
) -> Figure:
    """Draw predictions against the truth with the 1:1 line, and predicted minus true beneath, a panel a method.

    Galaxies are dots, or counts when they are many. The red line is the running median in bins of equal numbers of
    galaxies; thin lines among the residuals are their 16th and 84th percentiles. Panels share their axes, which hold
    all true values and the central 99 % of every method's predictions and residuals; a panel says how many galaxies lie
    outside.

    Parameters
    ----------
    y_true : ndarray of shape (n_galaxies,)
        True values.
    predictions : mapping of str to ndarray of shape (n_galaxies,)
        Method to its predictions of the same galaxies, in the same order and unit.
    column, unit : str
        The label column and its unit; "" for a pure number.

    Raises
    ------
    ValueError
        If there is no method, lengths differ, or a value is not finite.
    """
    _require_pairs(y_true, predictions)
    values = _common_range([y_true, *(_central(y) for y in predictions.values())])
    residuals = _common_range([_central(y - y_true) for y in predictions.values()])
    n_columns = len(predictions) if len(predictions) <= 4 else 3
    n_rows = -(-len(predictions) // n_columns)
    width_in = style.COLUMN_WIDTH_IN if n_columns == 1 else style.PAGE_WIDTH_IN
    fig = Figure(figsize=(width_in, 1.4 * n_rows * width_in / n_columns))
    fig.set_layout_engine("constrained", h_pad=0.015, hspace=0.0)
    grid = fig.add_gridspec(2 * n_rows, n_columns, height_ratios=[_RESIDUAL_SHARE, 1] * n_rows)
    n_label_characters = int(13 * width_in / n_columns)
    axes: list[Axes] = []
    for i, (name, y_pred) in enumerate(predictions.items()):
        row, position = divmod(i, n_columns)
        upper, lower = fig.add_subplot(grid[2 * row, position]), fig.add_subplot(grid[2 * row + 1, position])
        axes += [upper, lower]
        upper.set(xlim=values, ylim=values)
        title = style.wrapped(name, 38 if n_columns == 1 else 84 // n_columns)
        upper.set_title(title if row == 0 else f"\n{title}")  # an empty line parts it from the panels above
        lower.set(xlim=values, ylim=residuals)
        for axis in (upper.xaxis, upper.yaxis, lower.xaxis):
            axis.set_major_locator(MaxNLocator(_N_TICKS[n_columns]))
        _draw_method(upper, lower, y_true, y_pred)
        upper.tick_params(labelbottom=False, labelleft=position == 0)
        lower.tick_params(labelleft=position == 0)
        if position == 0:
            upper.set_ylabel(style.wrapped(style.with_unit(f"predicted {column}", unit), n_label_characters))
            lower.set_ylabel("residual" + (f"\n({unit})" if unit else ""))
        lower.set_xlabel(style.wrapped(style.with_unit(f"true {column}", unit), n_label_characters))
    fig.align_ylabels(axes)
    _share_counts(fig, axes)
    fig.draw_without_rendering()
    box = axes[0].bbox
    extra_in = (box.width - box.height) / fig.dpi * (1 + 1 / _RESIDUAL_SHARE) * n_rows
    fig.set_size_inches(width_in, fig.get_figheight() + extra_in)  # so that 1:1 stands at 45 degrees
    return fig


def _draw_method(upper: Axes, lower: Axes, y_true: NDArray[np.floating], y_pred: NDArray[np.floating]) -> None:
    residual = y_pred - y_true
    _draw_galaxies(upper, y_true, y_pred, _N_BINS)
    _draw_galaxies(lower, y_true, residual, round(_N_BINS / _RESIDUAL_SHARE))
    upper.axline((0, 0), slope=1, color=style.BLACK, linewidth=0.8, linestyle="--", label="1:1")
    lower.axhline(0, color=style.BLACK, linewidth=0.8, linestyle="--")
    center, (median,) = _running_quantiles(y_true, y_pred, (0.5,))
    upper.plot(center, median, color=style.VERMILION, label="running median")
    center, levels = _running_quantiles(y_true, residual, (0.16, 0.5, 0.84))
    for level, width in zip(levels, (0.7, 1.3, 0.7), strict=True):
        lower.plot(center, level, color=style.VERMILION, linewidth=width)
    scores = {"RMSE": rmse(y_true, y_pred), "NMAD": nmad(y_true, y_pred)}
    visible = [score for score in scores.values() if score > 0.01 * scores["RMSE"]]  # not the rounding of a zero
    n_decimals = int(np.clip(2 - np.floor(np.log10(min(visible))), 0, 6)) if visible else 2
    offset = round(bias(y_true, y_pred), n_decimals) + 0.0  # not -0.0
    n_outside = int((_is_outside(y_pred, upper.get_ylim()) | _is_outside(residual, lower.get_ylim())).sum())
    lines = [f"{name} {score:.{n_decimals}f}" for name, score in scores.items()]
    lines.append(f"bias {offset:+.{n_decimals}f}".replace("-", "−"))
    if n_outside:
        lines.append(f"{n_outside} outside")
    upper.text(
        0.05, 0.95, "\n".join(lines), transform=upper.transAxes, va="top", fontsize=style.SMALL_PT,
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1.5},
    )  # fmt: skip


def _draw_galaxies(ax: Axes, x: NDArray[np.floating], y: NDArray[np.floating], n_y_bins: int) -> None:
    """Draw dots, or counts of galaxies in bins, within the limits of the axes."""
    x_range, y_range = ax.get_xlim(), ax.get_ylim()
    if len(x) <= _N_DOTS:
        size = float(np.clip(100 / np.sqrt(len(x)), 2.5, 5))
        ax.plot(x, y, ".", color=style.BLUE, alpha=0.5, markersize=size, markeredgewidth=0, rasterized=True)
    else:
        counts, *edges = np.histogram2d(x, y, bins=(_N_BINS, n_y_bins), range=(x_range, y_range))
        colors = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.25, 1, 256)))
        ax.pcolormesh(*edges, np.ma.masked_less(counts.T, 1), cmap=colors, norm=LogNorm(), rasterized=True)
    ax.set(xlim=x_range, ylim=y_range)


def _share_counts(fig: Figure, axes: Sequence[Axes]) -> None:
    """Give the counts of all panels one colour scale and bar; where there are dots, do nothing."""
    meshes = [mesh for ax in axes for mesh in ax.collections]
    if meshes:
        norm = LogNorm(1, max(10.0, *(mesh.get_clim()[1] for mesh in meshes)))
        for mesh in meshes:
            mesh.set_norm(norm)
        fig.colorbar(meshes[0], ax=list(axes), label="galaxies per bin", aspect=fig.get_figheight() / 0.08, pad=0.01)


def _running_quantiles(
    x: NDArray[np.floating], y: NDArray[np.floating], levels: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return medians of `x`, (n_bins,), and quantiles of `y`, (n_levels, n_bins), in bins of equal numbers."""
    bins = np.array_split(np.argsort(x, kind="stable"), int(np.clip(len(x) // 40, 1, 24)))
    centers = np.array([np.median(x[rows]) for rows in bins], dtype=np.float64)
    return centers, np.array([np.quantile(y[rows], levels) for rows in bins], dtype=np.float64).T


def _central(y: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.quantile(y, [0.005, 0.995])


def _common_range(parts: Sequence[NDArray[np.floating]]) -> _Range:
    """Return the smallest range that holds all parts, with a margin."""
    low, high = float(min(part.min() for part in parts)), float(max(part.max() for part in parts))
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _is_outside(y: NDArray[np.floating], limits: _Range) -> NDArray[np.bool_]:
    return (y < limits[0]) | (y > limits[1])


def _require_pairs(y_true: NDArray[np.floating], predictions: Mapping[str, NDArray[np.floating]]) -> None:
    if not predictions:
        raise ValueError("predictions must hold at least one method")
    for name, y in {"y_true": y_true, **predictions}.items():
        if y.ndim != 1 or y.shape != y_true.shape or len(y) == 0:
            raise ValueError(f"{name} must be of shape (n_galaxies,) like y_true {y_true.shape}, got {y.shape}")
        if not np.isfinite(y).all():
            raise ValueError(f"{name} holds {int((~np.isfinite(y)).sum())} values that are not finite")
