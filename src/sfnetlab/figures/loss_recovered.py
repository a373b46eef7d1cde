"""What a probe of the embedding keeps when it is given reconstructions instead: loss recovered against sparsity."""

import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, compared
from sfnetlab.figures.kinds import COMPONENTS, DICTIONARIES, TRAINED_DICTIONARIES


def draw(findings: Findings) -> Figures:
    """Draw all dictionaries in one figure, where the loss of some is known."""
    metrics = compared(findings)
    if metrics is not None:
        is_known = (metrics["metric"] == "loss_recovered") & metrics["kind"].isin(DICTIONARIES)
        if is_known.any():
            yield from style.drawn("loss_recovered", plot_loss_recovered, metrics)


@style.paper_figure
def plot_loss_recovered(metrics: pd.DataFrame) -> Figure:
    """Draw the loss recovered by SAEs and null arms (grey, open) against k, a panel for each column of each target.

    For thresholds k is the mean L0 aimed at. Lines join means over seeds, small dots are the seeds, bars the 95 %
    interval over galaxies and runs. The thin line is 1, where nothing is lost; at 0 reconstructions are no better than
    the mean of the train labels. PCA is a line across, with as many components as the legend says. The axis spans what
    is drawn and 1; where a value is below -1 or above 2, it is logarithmic beyond 1 on either side.

    Parameters
    ----------
    metrics : DataFrame
        `metrics.parquet` of fit-probes: a row a number, of one experiment. PCA has as many components as its probes
        used features.

    Raises
    ------
    ValueError
        If columns are missing, no SAE or null arm has the metric `loss_recovered`, or a number appears twice.
    """
    style.require_columns(
        metrics,
        ("features", "kind", "k", "seed", "target", "column", "metric", "n_features_used", "value", "low", "high"),
        "the table of metrics",
    )
    recovered = metrics[metrics["metric"] == "loss_recovered"]
    rows = recovered[recovered["kind"].isin(DICTIONARIES)]
    if rows.empty:
        raise style.EmptyFigureError(
            "no SAE or null arm has the metric loss_recovered; fit-probes writes it where the embedding helps"
        )
    if rows.duplicated(["features", "k", "seed", "target", "column"]).any():
        raise ValueError("a loss_recovered appears twice; give the metrics of one experiment")
    rows = rows.rename(columns={"k": "x", "value": "y"}).astype({"x": float})
    components = recovered[recovered["kind"].isin(COMPONENTS)]
    n_components = metrics[metrics["metric"] == "rmse"].groupby("features")["n_features_used"].max()
    looks = style.looks_of(pd.concat([rows, components]))
    kinds = {str(name): str(kind) for name, kind in rows.groupby("features")["kind"].first().items()}
    labels = {name: style.wrapped(style.method_name(name, kind), 24) for name, kind in kinds.items()}
    for name, kind in components.groupby("features", sort=False)["kind"].first().items():
        label = f"{style.method_name(str(name), str(kind))}, {n_components[str(name)]} components"
        labels[str(name)] = style.wrapped(label, 24)
    panels = list(rows.groupby(["target", "column"], sort=False))
    y_label = "loss recovered on test galaxies\n(1: as good as the embedding)"
    fig, axes = style.panel_grid(len(panels), y_label, labels.values())
    numbers = recovered[["value", "low", "high"]].to_numpy(dtype=float)
    if (numbers < -1).any() or (numbers > 2).any():
        axes[0].set_yscale("symlog", linthresh=1, linscale=2)
        axes[0].yaxis.set_major_formatter("{x:g}")
    for ax, ((target, column), panel) in zip(axes, panels, strict=True):
        ax.axhline(1, color=style.GREY, linewidth=0.6, label="_level")
        curves = [
            style.Curve(
                labels[name], looks[name], panel[panel["features"] == name], kinds[name] in TRAINED_DICTIONARIES
            )
            for name in looks
            if (panel["features"] == name).any()
        ]
        style.draw_budget_panel(ax, curves, "active latents per galaxy (k)")
        across = components[(components["target"] == target) & (components["column"] == column)]
        for name, value in across.groupby("features")["value"]:
            look = looks[str(name)]
            ax.axhline(value.mean(), color=look.color, linestyle=look.linestyle, label=labels[str(name)])
        ax.set_title(style.wrapped(f"{target}: {column}", 34))
    style.share_legend(fig, axes)
    return fig
