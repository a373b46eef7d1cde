"""The galaxies in which each feature is strongest: what a feature looks like on the sky."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, TableFindings, best_on_valid
from sfnetlab.figures.kinds import NETWORKS, TRAINED_DICTIONARIES

N_FEATURES = 8
"""Features of the figure, shared by its methods."""
N_EXAMPLES = 8
_GAP = 0.05
_LABEL_IN = 1.25


class Row(NamedTuple):
    """One feature."""

    name: str
    frequency: float
    note: str
    images: NDArray[np.uint8]
    """At most `N_EXAMPLES` cutouts, strongest first."""
    activations: NDArray[np.floating]


def draw(findings: Findings) -> Figures:
    """Draw the most used features of the best sparse network and the best dictionary, each with its strongest galaxies.

    What is best is so on valid galaxies. A dense dimension is strongest at one end of what all galaxies have, which
    says little of it.
    """
    if not findings.has_images:
        return
    sparse = [table for table in findings.typical() if table.spec.kind in (*NETWORKS, *TRAINED_DICTIONARIES)]
    described = [table for table in sparse if table.traits.is_sparse and table.read("features") is not None]
    is_network = [table.spec.kind in NETWORKS for table in described]
    shown: list[TableFindings] = []
    for which in (True, False):
        of_role = [table for table, network in zip(described, is_network, strict=True) if network is which]
        if (best := best_on_valid(findings, of_role)) is not None:
            shown.append(best)
    if shown:
        yield from style.drawn("strongest_galaxies", _of_tables, findings, shown)


def _of_tables(findings: Findings, tables: Sequence[TableFindings]) -> Figure:
    """Draw the most used features of some tables."""
    rows = [row for table in tables for row in _rows(findings, table, N_FEATURES // len(tables))]
    if not rows:
        raise style.EmptyFigureError("no feature is active in a test galaxy")
    images = np.zeros((len(rows), N_EXAMPLES, *rows[0].images.shape[1:]), dtype=np.uint8)
    activations = np.full((len(rows), N_EXAMPLES), np.nan)
    for i, row in enumerate(rows):
        n = len(row.activations)
        images[i, :n], activations[i, :n] = row.images, row.activations
    return plot_strongest_galaxies(
        images,
        activations,
        [row.name for row in rows],
        np.array([row.frequency for row in rows]),
        findings.pixel_scale_arcsec,
        [row.note for row in rows],
    )


def _rows(findings: Findings, table: TableFindings, n: int) -> Iterator[Row]:
    """Yield the `n` most used features of a table, rows of its table `features`."""
    features, examples = table.need("features").head(n), table.need("examples")
    examples = examples[examples["rank"] < N_EXAMPLES]
    weights = [name for name in features.columns if name.startswith("weight_")]
    for feature in features.to_dict("records"):
        strongest = examples[examples["feature"] == feature["feature"]]
        notes = [
            f"{name.removeprefix('weight_')}: {_signed(feature[name], 3)}"
            for name in weights
            if pd.notna(feature[name])
        ]
        if np.isfinite(feature["rho"]):  # a feature that does not vary goes with no label
            notes.append(f"ρ = {_signed(feature['rho'], 2)} {feature['best_label'].removeprefix('factor_')}")
        yield Row(
            f"{table.spec.features} {feature['feature']}",
            feature["frequency"],
            "\n".join(notes),
            findings.cutouts(strongest["id_str"]),
            strongest["activation"].to_numpy(dtype=np.float64),
        )


def _signed(value: float, n_decimals: int) -> str:
    return f"{value:+.{n_decimals}f}".replace("-", "−")


@style.paper_figure
def plot_strongest_galaxies(
    images: NDArray[np.uint8],
    activations: NDArray[np.floating],
    names: Sequence[str],
    frequencies: NDArray[np.floating],
    pixel_scale_arcsec: float | None,
    notes: Sequence[str],
) -> Figure:
    """Draw a row for each feature: its name, how often it is active, a note, and its strongest galaxies.

    The activation of the feature stands on each galaxy.

    Parameters
    ----------
    images : ndarray of uint8, shape (n_features, n_examples, height, width, 3)
        Cutouts, strongest first; row 0 of an image is north, column 0 east.
    activations : ndarray of shape (n_features, n_examples)
        NaN leaves the place empty, for features active in fewer galaxies.
    names : sequence of str, length n_features
        What the features are called.
    frequencies : ndarray of shape (n_features,)
        Fraction of galaxies that activate the feature, in [0, 1].
    pixel_scale_arcsec : float or None
        Arcseconds a pixel of `images`; None draws no scale bar.
    notes : sequence of str, length n_features
        A line or two beneath the frequency, such as weights and correlations; "" for none.

    Raises
    ------
    ValueError
        If shapes differ, images are not uint8 RGB, a frequency lies outside [0, 1], or every activation is NaN.
    """
    style.require_cutouts(images, n_dimensions=5)
    n_features, n_examples = images.shape[:2]
    if activations.shape != (n_features, n_examples) or frequencies.shape != (n_features,):
        raise ValueError(
            f"activations and frequencies must have shapes {(n_features, n_examples)} and {(n_features,)}, "
            f"got {activations.shape} and {frequencies.shape}"
        )
    if len(names) != n_features or len(notes) != n_features:
        raise ValueError(f"names and notes must have {n_features} entries, got {len(names)} and {len(notes)}")
    if not ((frequencies >= 0) & (frequencies <= 1)).all():
        raise ValueError("frequencies must lie in [0, 1]")
    if not np.isfinite(activations).any():
        raise style.EmptyFigureError("activations hold no finite value: there is no galaxy to draw")
    labels = [_label(*row) for row in zip(names, frequencies, notes, strict=True)]
    pitch = 1 + _GAP
    side_in = min(1.1, (style.PAGE_WIDTH_IN - _LABEL_IN) / (n_examples * pitch))
    line = style.SMALL_PT * 1.3 / 72 / side_in
    heights = [max(pitch, line * (name.count("\n") + text.count("\n") + 2) + 2 * _GAP) for name, text in labels]
    tops = np.cumsum([_GAP, *heights])
    label_width = _LABEL_IN / side_in
    width, height = label_width + n_examples * pitch, float(tops[-1])
    fig = Figure(figsize=(width * side_in, height * side_in))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    for top, (name, text), row, strengths in zip(tops[:-1], labels, images, activations, strict=True):
        ax.text(0.06, top, name, va="top", fontsize=style.SMALL_PT, fontweight="bold")
        ax.text(0.06, top + line * (name.count("\n") + 1), text, va="top", fontsize=style.SMALL_PT)
        for i in np.flatnonzero(np.isfinite(strengths)):
            left = label_width + i * pitch
            style.draw_cutout(ax, row[i], left, top)
            ax.text(
                left + 0.05, top + 0.04, style.three_digits(strengths[i]), va="top", fontsize=style.SMALL_PT,
                color="white", path_effects=style.outlined(),
            )  # fmt: skip
    first_row, first_column = np.argwhere(np.isfinite(activations))[0]
    marked = (label_width + first_column * pitch, float(tops[first_row]))
    if pixel_scale_arcsec is not None:
        style.draw_scale_bar(ax, *marked, style.field_of(pixel_scale_arcsec, images[0, 0]))
    style.draw_compass(ax, *marked)
    ax.set(xlim=(0, width), ylim=(height, 0))
    return fig


def _label(name: str, frequency: float, note: str) -> tuple[str, str]:
    """Return the name and what stands beneath it, broken to the width of the margin."""
    percent = 100 * frequency
    share = "< 0.01" if 0 < percent < 0.01 else f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    lines = [f"active in {share} %", *note.splitlines()]
    return style.wrapped(name, 17), "\n".join(style.wrapped(line, 20) for line in lines)
