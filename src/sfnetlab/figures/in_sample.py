"""Do dense features carry the property: probes fitted on train rows beside those fitted to the test rows themselves."""

from itertools import cycle

import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.metrics.tidy import IN_SAMPLE
from sfnetlab.probes import probes_of

_COLUMNS = ("features", "kind", "seed", "probe", "n_features_used", "target", "column", "split", "metric", "value")
_LOOKS = ((style.BLUE, "o"), (style.GREEN, "s"), (style.VERMILION, "^"), (style.PURPLE, "D"))
"""Color and marker of each probe, in their order; of more they repeat."""


@style.paper_figure
def plot_in_sample(metrics: pd.DataFrame, target: str, column: str, unit: str) -> Figure:
    """Test RMSE of each probe of each encoder, fitted on train rows (filled) and on the test rows (open).

    The distance between the two is what the probe memorises. Points are means over seeds, bars the mean 95 % intervals
    over galaxies; the line is the mean of the train labels. What is worse than 1.6 times that stands as its number at
    the right edge.

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
    encoders = rows[rows["kind"] == "encoder"]
    most = encoders.groupby(["features", "seed"], dropna=False)["n_features_used"].transform("max")
    encoders = encoders[encoders["n_features_used"] == most]
    with_cheating = encoders.loc[encoders["probe"].str.endswith(IN_SAMPLE), "features"]
    names = [name for name in dict.fromkeys(encoders["features"]) if name in set(with_cheating)]
    if not names:
        raise ValueError(f"no encoder has in-sample fits of target {target!r}, column {column!r}")
    looks = dict(zip(probes_of("values"), cycle(_LOOKS), strict=False))
    probes = [kind for kind in looks if (encoders["probe"] == kind.name).any()]
    labels = [style.wrapped(name, 22) for name in names]
    n_lines = sum(len(probes) + 0.4 * label.count("\n") for label in labels) + 0.8 * len(names)
    fig = Figure(figsize=(style.COLUMN_WIDTH_IN, 1.15 + 0.16 * n_lines), layout="constrained")
    ax = fig.subplots()
    level = rows.loc[rows["kind"] == "mean", "value"]
    right = 1.6 * float(level.mean()) if len(level) else float("inf")
    y = 0.0
    ticks: list[float] = []
    for name in names:
        start = y
        for kind in probes:
            color, marker = looks[kind]
            means = []
            for label in (kind.name, kind.name + IN_SAMPLE):
                own = encoders[(encoders["features"] == name) & (encoders["probe"] == label)]
                if own.empty:
                    continue
                value, low, high = own[["value", "low", "high"]].mean()
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
                    markerfacecolor=color if label == kind.name else "white", label=f"_{name} {label}", zorder=3,
                    clip_on=False,
                )  # fmt: skip
            ax.plot(means, [y] * len(means), color=color, linewidth=0.6, linestyle=":", zorder=1)
            y += 1
        ticks.append((start + y - 1) / 2)
        y += 0.8
    for kind in probes:
        color, marker = looks[kind]
        ax.plot([], [], linestyle="none", marker=marker, color=color, label=kind.label)
    ax.plot([], [], linestyle="none", marker="D", color=style.GREY, label="fitted on train")
    ax.plot([], [], linestyle="none", marker="D", color=style.GREY, markerfacecolor="white", label="fitted on test")
    if len(level):
        ax.axvline(level.mean(), color=style.BLACK, linewidth=0.9, label="predict the mean")
    ax.set_yticks(ticks, labels=labels)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(y - 0.8 - 0.2, -0.8)
    ax.set_xlim(0, min(ax.get_xlim()[1], right))
    ax.set_xlabel(style.wrapped(style.with_unit(f"test RMSE of {column}", unit), 40))
    fig.legend(loc="outside lower center", ncols=2, columnspacing=1)
    return fig
