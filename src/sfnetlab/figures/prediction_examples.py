"""Galaxies by how they are predicted: extremes, the worst, and some at random, with both values on each cutout."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.heads import best_heads
from sfnetlab.surveys.catalog import unit_of

N_EXAMPLES = 8
_LABEL_IN = 0.95


def draw(findings: Findings) -> Figures:
    """Draw a figure for each label column that heads predict, of the head that is best on valid galaxies."""
    if not findings.has_images:
        return
    for head, column in best_heads(findings):
        rows = head.of(column)
        y_true, y_pred = rows["y_true"].to_numpy(), rows["y_pred"].to_numpy()
        chosen = chosen_examples(y_true, y_pred, min(N_EXAMPLES, len(rows)), seed=0)
        places = np.stack(list(chosen.values()))
        cutouts = findings.cutouts(rows["id_str"].to_numpy()[places.ravel()])
        images = cutouts.reshape(*places.shape, *cutouts.shape[1:])
        about = (list(chosen), column, unit_of(column), head.title, findings.pixel_scale_arcsec)
        figure = plot_prediction_examples(images, y_true[places], y_pred[places], *about)
        yield f"examples-{head.table.name}-{column}", figure


def chosen_examples(
    y_true: NDArray[np.floating], y_pred: NDArray[np.floating], n: int, seed: int
) -> dict[str, NDArray[np.intp]]:
    """Return which galaxies have the lowest and highest values and the largest residuals, and some at random.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n_galaxies,)
        True and predicted values.
    n : int
        Galaxies of each sort.
    seed : int
        Seed of those at random.

    Returns
    -------
    dict of str to ndarray of int, shape (n,) or less
        What they are, and their places in the arrays.

    Raises
    ------
    ValueError
        If lengths differ, or there is no galaxy.
    """
    if y_true.shape != y_pred.shape or y_true.ndim != 1 or len(y_true) == 0:
        raise ValueError(f"expected as many labels as predictions, and some, got {y_true.shape} and {y_pred.shape}")
    orders = {
        "lowest predicted": y_pred,
        "lowest true": y_true,
        "highest predicted": -y_pred,
        "highest true": -y_true,
        "most underpredicted": y_pred - y_true,
        "most overpredicted": y_true - y_pred,
    }
    chosen = {name: np.argsort(values, kind="stable")[:n] for name, values in orders.items()}
    return chosen | {"random": np.random.default_rng(seed).permutation(len(y_true))[:n]}


@style.paper_figure
def plot_prediction_examples(
    images: NDArray[np.uint8],
    y_true: NDArray[np.floating],
    y_pred: NDArray[np.floating],
    names: list[str],
    column: str,
    unit: str,
    title: str,
    pixel_scale_arcsec: float | None,
) -> Figure:
    """Draw a row of cutouts for each reason to look at them, with the predicted value above the true one in each.

    Parameters
    ----------
    images : ndarray of uint8, shape (n_rows, n_examples, side, side, 3)
        Row 0 of an image is north, column 0 east.
    y_true, y_pred : ndarray of shape (n_rows, n_examples)
        True and predicted values; NaN where there is no galaxy.
    names : list of str, length n_rows
        The reasons: the keys of `chosen_examples`.
    column, unit : str
        The label column and its unit; "" for a pure number.
    title : str
        What the network is called.
    pixel_scale_arcsec : float or None
        Arcseconds a pixel; None draws no scale bar.

    Raises
    ------
    ValueError
        If images are not uint8 RGB, or there are not as many values and names.
    """
    style.require_cutouts(images, 5)
    n_rows, n_columns = images.shape[:2]
    if y_true.shape != (n_rows, n_columns) or y_pred.shape != y_true.shape or len(names) != n_rows:
        raise ValueError(
            f"{n_rows} × {n_columns} cutouts need as many values and {n_rows} names, got {y_true.shape}, "
            f"{y_pred.shape} and {len(names)}"
        )
    width_in = style.PAGE_WIDTH_IN
    side_in = (width_in - _LABEL_IN) / n_columns
    top_in = 0.25
    fig = Figure(figsize=(width_in, side_in * n_rows + top_in))
    height = side_in * n_rows / (side_in * n_rows + top_in)
    ax = fig.add_axes((_LABEL_IN / width_in, 0, 1 - _LABEL_IN / width_in, height))
    for i, j in np.ndindex(n_rows, n_columns):
        if np.isnan(y_true[i, j]):
            continue
        style.draw_cutout(ax, images[i, j], j, i)
        for text, top in ((f"{y_pred[i, j]:.2f}", 0.04), (f"{y_true[i, j]:.2f}", 0.18)):
            color = style.ORANGE if top < 0.1 else "white"
            ax.text(
                j + 0.04, i + top, text, color=color, fontsize=style.SMALL_PT, va="top", path_effects=style.outlined()
            )
    for edge in range(n_rows + 1):
        ax.axhline(edge, color="white", linewidth=1.5)
    for edge in range(n_columns + 1):
        ax.axvline(edge, color="white", linewidth=1.5)
    for i, name in enumerate(names):
        ax.text(-0.06, i + 0.5, name.replace(" ", "\n", 1), ha="right", va="center")
    ax.set(xlim=(0, n_columns), ylim=(n_rows, 0))
    ax.set_axis_off()
    style.draw_compass(ax, 0, 0)
    if pixel_scale_arcsec is not None:
        style.draw_scale_bar(ax, 0, 0, style.field_of(pixel_scale_arcsec, images[0, 0]))
    heading = f"{style.with_unit(column, unit)} by {title}: predicted (above, orange), true (below)"
    fig.text(_LABEL_IN / width_in, 1 - 0.05 / fig.get_figheight(), heading, va="top")
    return fig
