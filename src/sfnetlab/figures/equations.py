"""Linear laws as the SFNet paper writes them: the symbol of a feature is the galaxy in which it is strongest."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, TableFindings
from sfnetlab.figures.network_features import name_prefix, networks
from sfnetlab.interpret.equations import UNIT, printed_terms
from sfnetlab.surveys.catalog import LINE_FLUXES

_COLUMNS = (
    "property", "term", "value", "half_width", "n_decimals", "share", "n_effective", "n_test", "r2_test", "rmse_test",
)  # fmt: skip
_SIDE_IN = 0.7
_TERM_IN = 1.35
_NUMBER_IN = 0.6
"""Of a term, what stands before its cutout."""
_NAME_IN = 1.08
_ROW_IN = 0.98
_NOTE_IN = 0.34
_TERMS_A_ROW = int((style.PAGE_WIDTH_IN - _NAME_IN - _NUMBER_IN) // _TERM_IN)
_FIRST_PT = 9.0
N_TERMS = 4
"""Features of each equation."""


def draw(findings: Findings) -> Figures:
    """Draw a figure a network: the laws that least squares fit for what its head predicts."""
    for network in networks(findings):
        laws = _fitted_laws(findings, network)
        if laws is None or laws.empty:
            continue
        symbols = _symbols(laws, network)
        cutouts = {term: None if name is None else findings.cutouts([name])[0] for term, name in symbols.items()}
        prefixes = dict.fromkeys(laws["property"].unique(), name_prefix(network))
        figure = plot_equations(printed_terms(laws), cutouts, prefixes, UNIT)
        yield f"equations-{network.spec.features}", figure


def _symbols(laws: pd.DataFrame, network: TableFindings) -> dict[tuple[str, str], str | None]:
    """Return the galaxy of each property and term: the strongest of its feature that no earlier term of the law shows.

    Near copies are strongest in the same galaxy, which would look like one feature twice.
    """
    chosen: dict[tuple[str, str], str | None] = {}
    for name, law in laws.groupby("property", sort=False):
        shown: set[str] = set()
        for term in law["term"][law["term"].str.isdigit()]:
            strongest = list(network.strongest(int(term)))
            galaxy = next((each for each in strongest if each not in shown), strongest[0] if strongest else None)
            chosen[str(name), str(term)] = galaxy
            shown |= {galaxy} if galaxy is not None else set()
    return chosen


def _fitted_laws(findings: Findings, network: TableFindings) -> pd.DataFrame | None:
    """Return the first terms of each law; of a network that predicts emission lines, laws of their ratios."""
    laws = network.read("equations")
    if laws is None or network.head_target is None:
        return None
    laws = laws[laws["origin"] == "regression"]
    predicted = findings.targets[network.head_target].columns
    ratios = [name for name in laws["property"].unique() if str(name).startswith("log([")]
    wanted = ratios if set(LINE_FLUXES) <= set(predicted) and ratios else list(predicted)
    return laws[laws["property"].isin(wanted)].groupby("property", sort=False).head(1 + N_TERMS)


@style.paper_figure
def plot_equations(
    table: pd.DataFrame,
    cutouts: Mapping[tuple[str, str], NDArray[np.uint8] | None],
    prefixes: Mapping[str, str],
    unit: str,
) -> Figure:
    """Draw an equation a property, one beneath the other; a long one goes on in the next row.

    Coefficients multiply normalised activations, so that the galaxy shown stands for about 1. Beneath a coefficient
    stands half the width of its 95 % interval, where it has one, beneath a cutout the feature's name and its share of
    the prediction's variance.

    Parameters
    ----------
    table : DataFrame
        `interpret.equations.printed_terms` of laws one under the other, columns `property, term, value, half_width,
        n_decimals, share, n_effective, n_test, r2_test, rmse_test`. The first row of each property is the intercept.
        All terms given are drawn; if they are the first rows of a longer law, the quality is still that of the whole.
    cutouts : mapping of (property, term) to uint8 (side, side, 3) or None
        A galaxy in which the feature is strong, of every feature in the table; row 0 is north, column 0 east. None,
        where a feature is active in no galaxy that may be shown, leaves an empty frame.
    prefixes : mapping of property to str
        What the names of its features begin with: "Z" makes "Z61" of the term "61".
    unit : str
        Unit of activations, in words: `interpret.equations.UNIT`.

    Raises
    ------
    ValueError
        If columns are missing, a law does not begin with its intercept, or a feature has no cutout.
    """
    style.require_columns(table, _COLUMNS, "table of equations")
    laws = [(str(name), law) for name, law in table.groupby("property", sort=False)]
    for name, law in laws:
        terms = law["term"].tolist()
        if terms[0] != "intercept" or len(terms) < 2:
            raise ValueError(f"{name}: an equation is an intercept and at least one feature, got {terms}")
        if absent := [term for term in terms[1:] if (name, term) not in cutouts]:
            raise ValueError(f"{name}: no cutout of the features {absent}")
    n_rows = [-(-(len(law) - 1) // _TERMS_A_ROW) for _, law in laws]
    widest = min(_TERMS_A_ROW, max(len(law) - 1 for _, law in laws))
    width = _NAME_IN + _NUMBER_IN + widest * _TERM_IN
    height = sum(n_rows) * _ROW_IN + _NOTE_IN
    fig = Figure(figsize=(width, height))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    top = 0.06
    for (name, law), rows in zip(laws, n_rows, strict=True):
        _draw_law(ax, name, law, cutouts, prefixes[name], top)
        top += rows * _ROW_IN
    note = (
        f"A galaxy stands for the activation of its feature / its {unit}; %: share of the prediction's variance;\n"
        "effective: features of which none is a near copy (|r| > 0.8) of another."
    )
    ax.text(0.05, height - 0.05, note, va="bottom", fontsize=style.SMALL_PT, color=style.GREY)
    ax.set(xlim=(0, width), ylim=(height, 0))
    return fig


def _draw_law(
    ax: Axes,
    name: str,
    law: pd.DataFrame,
    cutouts: Mapping[tuple[str, str], NDArray[np.uint8] | None],
    prefix: str,
    top: float,
) -> None:
    middle = top + _SIDE_IN / 2
    first = law.iloc[0]
    ax.text(0.05, middle, style.wrapped(name, 17), va="center", fontsize=_FIRST_PT - 1)
    quality = (
        f"R² = {first['r2_test']:.2f}\nRMSE {style.three_digits(first['rmse_test'])}\nn = {first['n_test']:,}\n"
        f"{first['n_effective']} effective"
    )
    ax.text(0.05, middle + 0.12, quality, va="top", fontsize=style.SMALL_PT - 0.5, color=style.GREY)
    ax.text(_NAME_IN - 0.1, middle, "=", va="center", ha="center", fontsize=_FIRST_PT)
    _draw_number(ax, first, _NAME_IN + _NUMBER_IN - 0.08, middle, is_first=True)
    for i, (_, row) in enumerate(law.iloc[1:].iterrows()):
        line, place = divmod(i, _TERMS_A_ROW)
        left, y = _NAME_IN + _NUMBER_IN + place * _TERM_IN, top + line * _ROW_IN
        _draw_number(ax, row, left + _NUMBER_IN - 0.11, y + _SIDE_IN / 2, is_first=False)
        ax.text(left + _NUMBER_IN - 0.045, y + _SIDE_IN / 2, "×", va="center", ha="center", fontsize=_FIRST_PT)
        x = left + _NUMBER_IN + 0.03
        image = cutouts[name, str(row["term"])]
        if image is None:
            _draw_frame(ax, x, y)
        else:
            style.require_cutouts(image, n_dimensions=3)
            ax.imshow(image, origin="upper", extent=(x, x + _SIDE_IN, y + _SIDE_IN, y), interpolation="none")
        caption = f"{prefix}{row['term']} · {100 * row['share']:.0f} %"
        ax.text(
            x + _SIDE_IN / 2, y + _SIDE_IN + 0.02, caption, va="top", ha="center", fontsize=style.SMALL_PT,
        )  # fmt: skip


def _draw_frame(ax: Axes, x: float, y: float) -> None:
    """Draw what stands in place of a cutout for a feature that no test galaxy activates."""
    ax.add_patch(Rectangle((x, y), _SIDE_IN, _SIDE_IN, fill=False, edgecolor=style.SILVER, linewidth=0.6))
    ax.text(
        x + _SIDE_IN / 2, y + _SIDE_IN / 2, "in no test\ngalaxy", va="center", ha="center", fontsize=style.SMALL_PT,
        color=style.GREY,
    )  # fmt: skip


def _draw_number(ax: Axes, row: "pd.Series[float]", right: float, y: float, *, is_first: bool) -> None:
    value, half, n_decimals = row["value"], row["half_width"], int(row["n_decimals"])
    sign = "−" if value < 0 else "" if is_first else "+"
    gap = "" if is_first else " "
    ax.text(right, y, f"{sign}{gap}{abs(value):.{n_decimals}f}", va="center", ha="right", fontsize=_FIRST_PT)
    if np.isfinite(half):
        spread = f"± {half:.{n_decimals}f}"
        ax.text(right, y + 0.1, spread, va="top", ha="right", fontsize=style.SMALL_PT - 0.5, color=style.GREY)
