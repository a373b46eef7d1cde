"""What means over several predictions gain: over the symmetries of a cutout, over the networks of several seeds."""

import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, compared
from sfnetlab.metrics.gains import GAINS
from sfnetlab.metrics.tidy import HEAD
from sfnetlab.surveys.catalog import unit_of

_LINE_IN = 0.165
_MARKERS = dict(zip(GAINS, "osD", strict=True))
_COLORS = dict(zip(GAINS, (style.ORANGE, style.BLUE, style.BLACK), strict=True))


def draw(findings: Findings) -> Figures:
    """Draw a figure for each label column that heads predict, where cutouts were turned; of seeds alone none."""
    table = compared(findings, "gains")
    if table is not None and (table["gain"] == "augmentation").any():
        for column in table.loc[table["probe"] == HEAD, "column"].unique():
            yield f"gains-{column}", plot_gains(table, column, unit_of(column))


@style.paper_figure
def plot_gains(table: pd.DataFrame, column: str, unit: str) -> Figure:
    """Draw the change of the test RMSE of each network's own head, with 95 % interval; left of zero is better.

    Zero is the mean over seeds of one network's error on the cutouts as they lie. Intervals are over galaxies and runs,
    of means over seeds over galaxies alone.

    Parameters
    ----------
    table : DataFrame
        `gains.parquet` of fit-probes: `metrics.gains.Gain` with `features`, `k`, `probe`, `target` and `column`.
    column : str
        Which column to draw, of all targets that have it.
    unit : str
        Unit of the column, "" for a pure number.

    Raises
    ------
    ValueError
        If columns are missing, or no head predicts the column.
    """
    wanted = ("gain", "n_seeds", "difference", "low", "high", "features", "k", "probe", "target", "column")
    style.require_columns(table, wanted, "the table of gains")
    rows = table[(table["probe"] == HEAD) & (table["column"] == column)]
    if rows.empty:
        raise ValueError(f"the table of gains has no head that predicts {column!r}")
    has_targets = len(rows["target"].unique()) > 1
    groups = list(rows.groupby(["features", "k", "target"], dropna=False, sort=False))
    fig = Figure(figsize=(style.COLUMN_WIDTH_IN, 1.0 + _LINE_IN * (len(rows) + len(groups))), layout="constrained")
    ax = fig.subplots()
    places: list[float] = []
    labels: list[str] = []
    y = 0.0
    for (features, k, target), of_group in groups:
        places.append(y + (len(of_group) - 1) / 2)
        name = str(features) if pd.isna(k) else f"{features}, $k$ = {k:g}"
        labels.append(style.wrapped(f"{name} ({target})" if has_targets else name, 26))
        for row in of_group.to_dict("records"):
            color = _COLORS[row["gain"]]
            ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=1.0)
            ax.plot(row["difference"], y, color=color, marker=_MARKERS[row["gain"]], markersize=3.6, linestyle="none")
            y += 1
        y += 1
    ax.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
    ax.set_yticks(places, labels=labels)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(y - 1.3, -0.7)
    ax.locator_params(axis="x", nbins=4)
    ax.set_xlabel(style.wrapped(style.with_unit(f"change of the test RMSE of {column}", unit), 46))
    for gain in [gain for gain in GAINS if (rows["gain"] == gain).any()]:
        ax.plot([], [], marker=_MARKERS[gain], markersize=3.6, color=_COLORS[gain], linestyle="none", label=GAINS[gain])
    fig.legend(loc="outside lower center", ncols=2, columnspacing=1)
    return fig
