"""Features on the BPT diagram: which emission-line galaxies activate each feature, and what the strongest look like."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.network_features import networks, on_diagram
from sfnetlab.interpret.equations import UNIT, line_ratios
from sfnetlab.surveys.catalog import LINE_FLUXES, measured_labels
from sfnetlab.surveys.lines import kauffmann_2003, kewley_2001

X_RANGE, Y_RANGE = (-1.55, 0.55), (-1.05, 1.3)
"""Ranges of log([NII]/Hα) and log([OIII]/Hβ), as in the SFNet paper."""
_N_ACROSS = 3
"""Examples stand in a square of three by three."""
_GAP = 0.05


def draw(findings: Findings) -> Figures:
    """Draw a figure a network, where some test galaxies have all four lines."""
    for network in networks(findings):
        shown = on_diagram(findings, network)
        if shown is None:
            continue
        labels = measured_labels(shown.test)
        if not set(LINE_FLUXES) <= set(labels):
            continue
        ratios = line_ratios(labels).to_numpy()
        if np.isfinite(ratios).all(axis=1).any():
            examples = [findings.cutouts(network.strongest(feature, _N_ACROSS**2)) for feature in shown.names]
            figure = plot_bpt(ratios[:, 0], ratios[:, 1], shown.activations, list(shown.names.values()), examples, UNIT)
            yield f"bpt-{network.spec.features}", figure


@style.paper_figure
def plot_bpt(
    log_nii_ha: NDArray[np.floating],
    log_oiii_hb: NDArray[np.floating],
    activations: NDArray[np.floating],
    names: Sequence[str],
    examples: Sequence[NDArray[np.uint8]],
    unit: str,
) -> Figure:
    """Draw a BPT diagram for each feature, galaxies coloured by its activation, its strongest galaxies at the right.

    The strongest are drawn last, so that weak ones do not hide them. Lines are those of Kauffmann et al. 2003 (dashed)
    and Kewley et al. 2001 (solid), each up to where it leaves the frame, before its pole. N is how many galaxies on the
    diagram activate the feature; a corner says how many lie outside the frame.

    Parameters
    ----------
    log_nii_ha, log_oiii_hb : ndarray of shape (n_galaxies,)
        In dex; galaxies in which one is not finite are not on the diagram.
    activations : ndarray of shape (n_galaxies, n_features)
        `interpret.equations.normalised_activations`, not negative; above 1 the colour stays.
    names : sequence of str, length n_features
        What the features are called.
    examples : sequence of uint8 ndarrays of shape (at most 9, side, side, 3), one a feature
        Strongest first; row 0 of an image is north, column 0 east.
    unit : str
        Unit of activations, in words: `interpret.equations.UNIT`.

    Raises
    ------
    ValueError
        If lengths differ, an activation is negative or not finite, or no galaxy has both ratios.
    """
    n_features = len(names)
    n = len(log_nii_ha)
    if log_oiii_hb.shape != (n,) or activations.shape != (n, n_features) or len(examples) != n_features:
        raise ValueError(
            f"ratios of {n} and {len(log_oiii_hb)} galaxies, activations of shape {activations.shape}, {n_features} "
            f"names and {len(examples)} sets of examples do not fit"
        )
    require_activations(activations)
    on_diagram = np.isfinite(log_nii_ha) & np.isfinite(log_oiii_hb)
    if not on_diagram.any():
        raise style.EmptyFigureError("no galaxy has both line ratios")
    x, y, strength = log_nii_ha[on_diagram], log_oiii_hb[on_diagram], activations[on_diagram]
    n_columns = min(2, n_features)
    n_rows = -(-n_features // n_columns)
    pair_in = (1.68, 1.3)  # widths of a diagram and of its examples
    left_in, gap_in, top_in, panel_in, bottom_in, bar_in = 0.46, 0.11, 0.24, 1.75, 0.38, 0.5
    block_in = left_in + sum(pair_in) + gap_in  # two fill a page
    width_in = n_columns * block_in
    height_in = n_rows * (top_in + panel_in) + bottom_in + bar_in
    fig = Figure(figsize=(width_in, height_in))
    colours = activation_colours()
    for i, name in enumerate(names):
        row, column = divmod(i, n_columns)
        x0 = column * block_in + left_in
        y0 = height_in - (row + 1) * (top_in + panel_in)
        ax = fig.add_axes((x0 / width_in, y0 / height_in, pair_in[0] / width_in, panel_in / height_in))
        _draw_galaxies(ax, x, y, strength[:, i], colours)
        _draw_frame(ax, x, y)
        ax.set_title(f"{name} (N = {np.count_nonzero(strength[:, i]):,})", pad=3)
        is_lowest = i + n_columns >= n_features
        ax.tick_params(labelbottom=is_lowest, labelleft=column == 0)
        if is_lowest:
            ax.set_xlabel("log([NII]/Hα)  (dex)")
        if column == 0:
            ax.set_ylabel("log([OIII]/Hβ)  (dex)", labelpad=1)
        x1 = x0 + pair_in[0] + 0.04
        side = (x1 / width_in, (y0 + panel_in - pair_in[1]) / height_in, pair_in[1] / width_in, pair_in[1] / height_in)
        _draw_examples(fig.add_axes(side), examples[i])
        if i == 0:  # beneath its examples is room
            fig.legend(
                *ax.get_legend_handles_labels(), loc="lower left", borderaxespad=0, handlelength=2,
                bbox_to_anchor=(x1 / width_in, (y0 + 0.03) / height_in),
            )  # fmt: skip
    bar = fig.add_axes((left_in / width_in, 0.34 / height_in, 2.1 / width_in, 0.09 / height_in))
    _draw_bar(fig, bar, colours, unit)
    return fig


def require_activations(activations: NDArray[np.floating]) -> None:
    """Raise ValueError unless normalised activations are finite and not negative."""
    if not (np.isfinite(activations).all() and (activations >= 0).all()):
        raise ValueError("activations must be finite and not negative; a feature with two signs is two features")


def activation_colours() -> Colormap:
    """Return colours from pale to dark, even in lightness, without the palest, which would be lost on white."""
    return ListedColormap(matplotlib.colormaps["magma_r"](np.linspace(0.09, 0.97, 256)))


def _draw_bar(fig: Figure, ax: Axes, colours: Colormap, unit: str) -> None:
    """Draw a horizontal bar of normalised activations from 0 to 1, where the last colour goes on."""
    mappable = ScalarMappable(Normalize(0, 1), colours)
    fig.colorbar(mappable, cax=ax, orientation="horizontal", extend="max")
    ax.set_xlabel(f"activation / its {unit}", labelpad=1)


def _draw_galaxies(
    ax: Axes, x: NDArray[np.floating], y: NDArray[np.floating], strength: NDArray[np.floating], colours: Colormap
) -> None:
    """Draw a dot a galaxy, the strongest last."""
    order = np.argsort(strength, kind="stable")
    size = float(np.clip(6000 / len(x), 1.0, 7.0))
    ax.scatter(
        x[order], y[order], c=strength[order], s=size, linewidths=0, cmap=colours, vmin=0, vmax=1, rasterized=True
    )


def _draw_frame(ax: Axes, x: NDArray[np.floating], y: NDArray[np.floating]) -> None:
    """Draw the two lines, set the limits, and count the galaxies outside."""
    grid = np.linspace(*X_RANGE, 500)
    for curve, dashes, label in ((kauffmann_2003, "--", "Kauffmann+03"), (kewley_2001, "-", "Kewley+01")):
        values = curve(grid)
        is_inside = values >= Y_RANGE[0]  # false for NaN, at and beyond the pole
        ax.plot(grid[is_inside], values[is_inside], color="black", linestyle=dashes, linewidth=0.9, label=label)
    outside = (x < X_RANGE[0]) | (x > X_RANGE[1]) | (y < Y_RANGE[0]) | (y > Y_RANGE[1])
    if n_outside := np.count_nonzero(outside):
        ax.text(0.03, 0.03, f"{n_outside} outside", transform=ax.transAxes, fontsize=style.SMALL_PT, color=style.GREY)
    ax.set(xlim=X_RANGE, ylim=Y_RANGE)


def _draw_examples(ax: Axes, images: NDArray[np.uint8]) -> None:
    ax.set_axis_off()
    pitch = 1 + _GAP
    ax.set(xlim=(0, _N_ACROSS * pitch), ylim=(_N_ACROSS * pitch, 0))
    if len(images) == 0:
        return
    style.require_cutouts(images, n_dimensions=4)
    for i, image in enumerate(images[: _N_ACROSS**2]):
        style.draw_cutout(ax, image, (i % _N_ACROSS) * pitch, (i // _N_ACROSS) * pitch)
    ax.set(xlim=(0, _N_ACROSS * pitch), ylim=(_N_ACROSS * pitch, 0))
