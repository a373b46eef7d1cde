"""Paired differences of all methods to one of them at equal budgets, and which are significant after correction."""

import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, compared
from sfnetlab.figures.kinds import NETWORKS
from sfnetlab.metrics.tidy import HEAD
from sfnetlab.surveys.catalog import unit_of

_COLUMNS = (
    "target", "column", "metric", "budget", "features_a", "k_a", "probe_a", "features_b", "k_b", "probe_b",
    "difference", "low", "high", "p_holm",
)  # fmt: skip
_SIGNIFICANT = 0.05
_LINE_IN = 0.155


def draw(findings: Findings) -> Figures:
    """Draw a figure for each label column and each network that others are compared with."""
    metrics, differences = compared(findings), compared(findings, "differences")
    if metrics is None or differences is None:
        return
    references = metrics.loc[metrics["kind"].isin(NETWORKS), "features"].unique()
    for name, target in findings.targets.items():
        for column in target.columns:
            of_column = differences[(differences["target"] == name) & (differences["column"] == column)]
            for reference in references:
                if (of_column[["features_a", "features_b"]] == reference).any(axis=None):
                    figure_name = f"differences-{reference}-{name}-{column}"
                    unit = unit_of(column)
                    yield from style.drawn(figure_name, plot_differences, differences, name, column, unit, reference)


@style.paper_figure
def plot_differences(differences: pd.DataFrame, target: str, column: str, unit: str, reference: str) -> Figure:
    """Draw the metric of every method minus that of the reference, with 95 % intervals, filled where significant.

    At the left are probes on all features: the reference with its own head (else ridge) at each of its k, against
    methods with that k and controls without one. At the right are linear probes on the same number of features in all.
    Zero is the reference.

    Parameters
    ----------
    differences : DataFrame
        `differences.parquet` of fit-probes.
    target, column : str
        Which target (or classes) and which of its columns to draw.
    unit : str
        Unit of the difference, "" for AUC.
    reference : str
        Name of the features to compare with.

    Raises
    ------
    ValueError
        If columns are missing or the reference is compared with nothing.
    """
    style.require_columns(differences, _COLUMNS, "the table of differences")
    rows = differences[(differences["target"] == target) & (differences["column"] == column)]
    pairs = pd.concat([_turned(rows[rows["features_b"] == reference]), rows[rows["features_a"] == reference]])
    pairs = pairs[pairs["features_b"] != reference]
    if pairs.empty:
        raise style.EmptyFigureError(f"{reference!r} is compared with nothing for target {target!r}, column {column!r}")
    on_all, on_budget = pairs[pairs["budget"].isna()], pairs[pairs["budget"].notna()]
    reference_probe = HEAD if (on_all["probe_a"] == HEAD).any() else None
    if reference_probe:
        on_all = on_all[on_all["probe_a"] == reference_probe]
    both = (("all features, equal k", on_all, "k_a"), ("equal features in all", on_budget, "budget"))
    panels = [(title, of_panel.assign(at=of_panel[at])) for title, of_panel, at in both if len(of_panel)]
    n_lines = [len(of_panel) + 1.3 * of_panel["at"].nunique(dropna=False) for _, of_panel in panels]
    width_in = style.PAGE_WIDTH_IN if len(panels) == 2 else style.COLUMN_WIDTH_IN
    fig = Figure(figsize=(width_in, 1.0 + _LINE_IN * max(n_lines)), layout="constrained")
    axes = fig.subplots(1, len(panels), squeeze=False)[0]
    metric = {"rmse": "RMSE", "auc": "AUC"}[str(pairs["metric"].iloc[0])]
    x_label = style.with_unit(f"{metric} of {column} minus that of {reference}", unit)
    for ax, (title, of_panel) in zip(axes, panels, strict=True):
        y = 0.0
        places: list[float] = []
        labels: list[str] = []
        for at, group in of_panel.groupby("at", dropna=False):
            symbol = "k" if title.startswith("all") else "n"
            places.append(y)
            labels.append("without k" if pd.isna(at) else f"${symbol}$ = {at}")
            y += 1
            # turned around: other minus reference
            for row in _turned(group).sort_values("difference").to_dict("records"):
                is_significant = row["p_holm"] < _SIGNIFICANT
                color = style.GREY if not is_significant else style.BLUE if row["difference"] < 0 else style.VERMILION
                ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=1.0)
                ax.plot(
                    row["difference"], y, marker="o", markersize=3.6, color=color, linestyle="none",
                    markerfacecolor=color if is_significant else "white",
                )  # fmt: skip
                places.append(y)
                labels.append(style.wrapped(f"{row['features_a']} ({row['probe_a']})", 30))
                y += 1
            y += 0.3
        ax.axvline(0, color=style.BLACK, linewidth=0.8, zorder=0)
        ax.set_yticks(places, labels=labels)
        for text in ax.get_yticklabels():
            if text.get_text().startswith(("$", "without k")):
                text.set_fontweight("bold")
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(y, -0.8)
        ax.locator_params(axis="x", nbins=4)
        ax.set_title(title)
        ax.set_xlabel(style.wrapped(x_label, 34))
    caption = "filled: significant (5 %, Holm); no bar: one run of a method"
    handle = axes[0].plot([], [], marker="o", markersize=3.6, color=style.BLACK, linestyle="none", label=caption)
    fig.legend(handles=handle, loc="outside lower center")
    return fig


def _turned(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the same differences as b minus a."""
    swap = {
        f"{name}_{a}": f"{name}_{b}" for name in ("features", "k", "probe", "n_features_used") for a, b in ("ab", "ba")
    }
    turned = rows.rename(columns=swap)
    return turned.assign(difference=-rows["difference"], low=-rows["high"], high=-rows["low"])
