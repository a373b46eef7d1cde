"""The predictions of a network's head at a glance: against the truth, in bins of it, their residuals and spread."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.heads import best_heads
from sfnetlab.metrics.regression import nmad, rmse
from sfnetlab.surveys.catalog import unit_of

_N_BINS = 60
_N_VALUE_BINS = 11
_N_LEAST = 10
"""Galaxies in a bin of the true value whose scatter is drawn."""


def draw(findings: Findings) -> Figures:
    """Draw a figure for each label column that heads predict, of the head that is best on valid galaxies."""
    for head, column in best_heads(findings):
        rows = head.of(column)
        y_true, y_pred = rows["y_true"].to_numpy(), rows["y_pred"].to_numpy()
        figure = plot_prediction_summary(y_true, y_pred, column, unit_of(column), head.title)
        yield f"summary-{head.table.name}-{column}", figure


@style.paper_figure
def plot_prediction_summary(
    y_true: NDArray[np.floating], y_pred: NDArray[np.floating], column: str, unit: str, title: str
) -> Figure:
    """Draw counts of galaxies by true and predicted value, with what summarises them.

    The main panel has counts (log scale), the running median of the predictions in bins of the true value, with ±1 RMSE
    (shaded) and ±1 NMAD (dashed) of the bin's residuals about that median, and the 1:1 line. Above are RMSE and NMAD of
    the residuals in bins of the true value, points larger where galaxies are more, and those over all galaxies as
    lines. At the right are the distributions of true and predicted values. The inset has the residuals, and the
    Gaussian of their median and NMAD; tails that stick out of it are outliers. Panels share the range that holds all
    true values and the central 99 % of the predictions; the legend says how many lie outside.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n_galaxies,)
        True and predicted values.
    column, unit : str
        The label column and its unit; "" for a pure number.
    title : str
        What the network is called.

    Raises
    ------
    ValueError
        If lengths differ, a value is not finite, or there are fewer than two galaxies.
    """
    if y_true.shape != y_pred.shape or y_true.ndim != 1 or len(y_true) < 2:
        raise ValueError(f"expected two or more labels and as many predictions, got {y_true.shape}, {y_pred.shape}")
    if not (np.isfinite(y_true).all() and np.isfinite(y_pred).all()):
        raise ValueError("a label or a prediction is not finite")
    values = np.concatenate([y_true, np.quantile(y_pred, (0.005, 0.995))])
    low, high = float(values.min()), float(values.max())
    margin = 0.03 * (high - low) or 0.5
    limits = (low - margin, high + margin)

    fig = Figure(figsize=(0.72 * style.PAGE_WIDTH_IN, 0.72 * style.PAGE_WIDTH_IN), layout="constrained")
    grid = fig.add_gridspec(2, 2, width_ratios=[4, 1], height_ratios=[1, 4])
    main = fig.add_subplot(grid[1, 0])
    above, right = fig.add_subplot(grid[0, 0], sharex=main), fig.add_subplot(grid[1, 1], sharey=main)
    main.set(xlim=limits, ylim=limits)
    _draw_counts(main, y_true, y_pred, limits)
    _draw_scatter(main, above, y_true, y_pred)
    _draw_distributions(right, y_true, y_pred, limits)
    _draw_residuals(main.inset_axes((0.64, 0.09, 0.34, 0.25)), y_pred - y_true, unit)
    if n_outside := int(((y_pred < limits[0]) | (y_pred > limits[1])).sum()):
        main.plot([], [], " ", label=f"{n_outside} outside")
    main.set_xlabel(style.with_unit(f"true {column}", unit))
    main.set_ylabel(style.with_unit(f"predicted {column}", unit))
    above.set_ylabel(f"scatter\n({unit})" if unit else "scatter")
    above.set_title(f"{title} (N = {len(y_true):,})")
    above.tick_params(labelbottom=False)
    right.tick_params(labelleft=False)
    main.legend(loc="upper left")
    corner = fig.add_subplot(grid[0, 1])
    corner.set_axis_off()
    corner.legend(*right.get_legend_handles_labels(), loc="lower left", handlelength=1.6, borderaxespad=0)
    return fig


def _draw_counts(
    ax: Axes, y_true: NDArray[np.floating], y_pred: NDArray[np.floating], limits: tuple[float, float]
) -> None:
    n_bins = int(np.clip(2 * np.sqrt(len(y_true)), 20, _N_BINS))
    counts, *edges = np.histogram2d(y_true, y_pred, bins=n_bins, range=(limits, limits))
    greys = ListedColormap(matplotlib.colormaps["Greys"](np.linspace(0.2, 0.9, 256)))
    norm = LogNorm(1, max(10.0, float(counts.max())))
    ax.pcolormesh(*edges, np.ma.masked_less(counts.T, 1), cmap=greys, norm=norm, rasterized=True)
    ax.axline((limits[0], limits[0]), slope=1, color=style.BLACK, linewidth=0.8, linestyle=":", label="1:1")


def _draw_scatter(main: Axes, above: Axes, y_true: NDArray[np.floating], y_pred: NDArray[np.floating]) -> None:
    residual = y_pred - y_true
    low, high = map(float, np.quantile(y_true, (0.005, 0.995)))
    edges = np.linspace(low, high, _N_VALUE_BINS + 1)
    places = np.clip(np.digitize(y_true, edges) - 1, 0, _N_VALUE_BINS - 1)
    rows = []
    for place in range(_N_VALUE_BINS):
        in_bin = places == place
        if in_bin.sum() >= _N_LEAST:
            truth, predicted = y_true[in_bin], y_pred[in_bin]
            about_one = (rmse(truth, predicted), nmad(truth, predicted))
            rows.append((np.median(truth), np.median(predicted), *about_one, int(in_bin.sum())))
    x, median, errors, deviations, n = np.array(rows).reshape(-1, 5).T  # no bins: the overall scatter alone
    sizes = 6 + 60 * n / max(n, default=1)
    looks = (("RMSE", errors, style.VERMILION, "o", rmse), ("NMAD", deviations, style.BLUE, "s", nmad))
    for name, scatter, color, marker, metric in looks:
        overall = metric(y_true, y_pred)
        above.scatter(x, scatter, s=sizes, color=color, marker=marker, alpha=0.8, linewidths=0)
        above.plot(x, scatter, color=color, linewidth=0.7)
        above.axhline(overall, color=color, linestyle=":", linewidth=0.9, label=f"{name} {style.three_digits(overall)}")
    above.set_ylim(0, 1.5 * max([*errors, *deviations, rmse(y_true, y_pred)]) or 1.0)
    above.legend(loc="upper center", ncols=2, handlelength=1.6)
    if len(x) > 1:
        main.plot(x, median, color=style.VERMILION, label="running median")
        main.fill_between(
            x, median - errors, median + errors, color=style.VERMILION, alpha=0.15, linewidth=0, label="±1 RMSE"
        )
        for sign in (-1, 1):
            label = "±1 NMAD" if sign > 0 else "_lower"
            main.plot(x, median + sign * deviations, color=style.BLUE, linestyle="--", linewidth=1.0, label=label)
    bias = float(np.mean(residual))
    main.plot([], [], " ", label=f"bias {bias:+.3f}".replace("-", "−"))


def _draw_distributions(
    ax: Axes, y_true: NDArray[np.floating], y_pred: NDArray[np.floating], limits: tuple[float, float]
) -> None:
    edges = np.linspace(*limits, int(np.clip(np.sqrt(len(y_true)), 12, 40)) + 1)
    for values, color, linestyle, label in (
        (y_true, style.BLACK, "-", "true"),
        (y_pred, style.VERMILION, "--", "predicted"),
    ):
        counts = np.histogram(values, bins=edges)[0]
        ax.stairs(counts, edges, orientation="horizontal", color=color, linestyle=linestyle, label=label, linewidth=1.1)
    ax.set_xlabel("galaxies")


def _draw_residuals(ax: Axes, residual: NDArray[np.floating], unit: str) -> None:
    center, sigma = float(np.median(residual)), nmad(np.zeros(len(residual)), residual)
    half = 4.5 * sigma if sigma > 0 else 1.0
    edges = np.linspace(center - half, center + half, int(np.clip(np.sqrt(len(residual)), 15, 50)) + 1)
    ax.stairs(np.histogram(residual, bins=edges)[0], edges, fill=True, color="#BBBBBB")
    if sigma > 0:
        x = np.linspace(center - half, center + half, 200)
        expected = len(residual) * (edges[1] - edges[0]) * np.exp(-(((x - center) / sigma) ** 2) / 2)
        ax.plot(x, expected / (sigma * np.sqrt(2 * np.pi)), color=style.BLUE, linewidth=1.0)
    ax.axvline(0, color=style.BLACK, linewidth=0.6, linestyle=":")
    note = f"N({center:+.3f}, {sigma:.3f})".replace("-", "−")
    ax.text(
        0.03,
        0.95,
        note,
        transform=ax.transAxes,
        va="top",
        fontsize=style.SMALL_PT - 1,
        color=style.BLUE,
        bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1},
    )
    ax.set_ylim(0, 1.35 * ax.get_ylim()[1])
    ax.set_yticks([])
    ax.tick_params(labelsize=style.SMALL_PT - 1)
    ax.set_xlabel(style.with_unit("predicted − true", unit), fontsize=style.SMALL_PT, labelpad=1)
    ax.set_facecolor("white")
