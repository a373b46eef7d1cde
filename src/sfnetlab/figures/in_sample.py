"""Do dense features carry the property: probes fitted on train rows beside those fitted to the test rows themselves."""

from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, compared
from sfnetlab.figures.kinds import PREDICT_THE_MEAN, predicts_the_mean
from sfnetlab.metrics.tidy import IN_SAMPLE
from sfnetlab.probes import ProbeKind, probes_of
from sfnetlab.surveys.catalog import unit_of

_COLUMNS = ("features", "kind", "seed", "probe", "n_features_used", "target", "column", "split", "metric", "value")
_LOOKS = ((style.BLUE, "o"), (style.GREEN, "s"), (style.VERMILION, "^"), (style.PURPLE, "D"))
"""Colour and marker of each probe, in their order; where there are more probes they repeat."""


def draw(findings: Findings) -> Figures:
    """Draw a figure for each label column for which probes were fitted to test rows."""
    metrics = compared(findings)
    if metrics is None:
        return
    for name, target in findings.targets.items():
        for column in target.columns:
            of_column = metrics[(metrics["target"] == name) & (metrics["column"] == column)]
            if of_column["probe"].str.endswith(IN_SAMPLE).any():
                yield f"in_sample-{name}-{column}", plot_in_sample(metrics, name, column, unit_of(column))


@style.paper_figure
def plot_in_sample(metrics: pd.DataFrame, target: str, column: str, unit: str) -> Figure:
    """Draw the test RMSE of each probe of each encoder, fitted on train rows (filled) and on the test rows (open).

    The distance between the two is what the probe memorises. Points are means over seeds, bars the 95 % intervals over
    galaxies and runs; the line is the error of the mean of the train labels. Of what is worse than 1.6 times that, the
    number stands at the right edge.

    Parameters
    ----------
    metrics : DataFrame
        `metrics.parquet` of fit-probes with the rows of probes called `<probe>_in_sample`; also `low` and `high`.
    target, column : str
        Which target and which of its columns to draw.
    unit : str
        Unit of the column; "" for a pure number.

    Raises
    ------
    ValueError
        If columns are missing or no encoder has in-sample rows.
    """
    style.require_columns(metrics, (*_COLUMNS, "low", "high"), "the metrics table")
    rows = metrics[(metrics["metric"] == "rmse") & (metrics["split"] == "test")]
    rows = rows[(rows["target"] == target) & (rows["column"] == column)]
    with_cheating = rows.loc[rows["probe"].str.endswith(IN_SAMPLE), "features"]
    encoders = rows[rows["features"].isin(with_cheating)]
    most = encoders.groupby(["features", "seed"], dropna=False)["n_features_used"].transform("max")
    encoders = encoders[encoders["n_features_used"] == most]
    names = list(dict.fromkeys(encoders["features"]))
    if not names:
        raise ValueError(f"no encoder has in-sample fits of target {target!r}, column {column!r}")
    looks = dict(zip(probes_of("values"), cycle(_LOOKS), strict=False))
    probes = [kind for kind in looks if (encoders["probe"] == kind.name).any()]
    labels = [style.wrapped(name, 22) for name in names]
    n_lines = sum(len(probes) + 0.4 * label.count("\n") for label in labels) + 0.8 * len(names)
    fig = Figure(figsize=(style.COLUMN_WIDTH_IN, 1.15 + 0.16 * n_lines), layout="constrained")
    ax = fig.subplots()
    level = rows.loc[predicts_the_mean(rows), "value"]
    right = 1.6 * float(level.mean()) if len(level) else float("inf")
    y = 0.0
    ticks: list[float] = []
    for name in names:
        start = y
        for probe in probes:
            _draw_probe(ax, y, encoders[encoders["features"] == name], probe, looks[probe], right)
            y += 1
        ticks.append((start + y - 1) / 2)
        y += 0.8
    for probe in probes:
        color, marker = looks[probe]
        ax.plot([], [], linestyle="none", marker=marker, color=color, label=probe.label)
    ax.plot([], [], linestyle="none", marker="D", color=style.GREY, label="fitted on train")
    ax.plot([], [], linestyle="none", marker="D", color=style.GREY, markerfacecolor="white", label="fitted on test")
    if len(level):
        ax.axvline(level.mean(), color=style.BLACK, linewidth=0.9, label=PREDICT_THE_MEAN)
    ax.set_yticks(ticks, labels=labels)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(y - 0.8 - 0.2, -0.8)
    ax.set_xlim(0, min(ax.get_xlim()[1], right))
    ax.set_xlabel(style.wrapped(style.with_unit(f"test RMSE of {column}", unit), 40))
    fig.legend(loc="outside lower center", ncols=2, columnspacing=1)
    return fig


def _draw_probe(
    ax: Axes, y: float, encoder: pd.DataFrame, probe: ProbeKind, look: tuple[str, str], right: float
) -> None:
    """Draw the errors of one probe of one encoder in one line; beyond `right` as a number at the edge."""
    color, marker = look
    means = []
    for label in (probe.name, probe.name + IN_SAMPLE):
        of_probe = encoder[encoder["probe"] == label]
        if of_probe.empty:
            continue
        value, low, high = of_probe[["value", "low", "high"]].mean()
        if value > right:
            ax.annotate(
                f"{style.three_digits(value)} ▸", (1, y), xycoords=("axes fraction", "data"), ha="right",
                va="center", color=color, fontsize=style.SMALL_PT,
            )  # fmt: skip
            continue
        means.append(value)
        ax.plot([low, high], [y, y], color=color, linewidth=0.9, zorder=2)
        ax.plot(
            value, y, linestyle="none", marker=marker, color=color,
            markerfacecolor=color if label == probe.name else "white",
            label=f"_{encoder['features'].iloc[0]} {label}", zorder=3, clip_on=False,
        )  # fmt: skip
    ax.plot(means, [y] * len(means), color=color, linewidth=0.6, linestyle=":", zorder=1)
