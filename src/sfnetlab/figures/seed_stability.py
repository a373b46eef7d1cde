"""How alike dictionaries of different seeds are, beside what chance would give."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings

_PANELS = {
    "decoder_cosine": "decoder cosine",
    "encoder_cosine": "encoder cosine",
    "shared_0.7": "share of pairs with\ndecoder cosine > 0.7",
    "shared_0.9": "share of pairs with\ndecoder cosine > 0.9",
    "activation_correlation": "correlation of\nactivations",
}


def draw(findings: Findings) -> Figures:
    """Draw all dictionaries of which there are several seeds in one figure."""
    stability = findings.stability()
    if stability is not None:
        yield "seed_stability", plot_seed_stability(style.named_with_k(stability))


@style.paper_figure
def plot_seed_stability(table: pd.DataFrame) -> Figure:
    """Draw the agreement of matched latents, a row a dictionary, best on top, and a panel for each metric in the table.

    Large markers are means over pairs of seeds, small dots beneath them the pairs. The vertical bar is the mean level
    of chance.

    Parameters
    ----------
    table : DataFrame
        `metrics.matching.seed_stability` with the columns `features` and `kind` added: `seed_a, seed_b, metric, value`.

    Raises
    ------
    ValueError
        If columns or rows are missing, or no metric is known.
    """
    style.require_columns(table, ("features", "kind", "seed_a", "seed_b", "metric", "value"), "the stability table")
    panels = [metric for metric in _PANELS if (table["metric"] == metric).any()]
    if not panels:
        raise ValueError(f"the stability table has none of the metrics {list(_PANELS)}")
    means = table.groupby(["metric", "features"])["value"].mean()
    looks = style.looks_of(table)
    names = list(means[panels[0]].reindex(list(looks)).sort_values().index)
    kinds = table.groupby("features")["kind"].first()
    labels = [style.wrapped(style.method_name(name, str(kinds[name])), 20) for name in names]
    height_in = 1.0 + len(names) * max(0.19, *(style.legend_height_in([label]) for label in labels))
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, height_in), layout="constrained")
    axes: list[Axes] = list(fig.subplots(1, len(panels), sharey=True, squeeze=False)[0])
    for ax, metric in zip(axes, panels, strict=True):
        for y, name in enumerate(names):
            rows = table[(table["metric"] == metric) & (table["features"] == name)]
            chance = means.get((f"{metric}_chance", name), np.nan)
            color, marker = looks[name].color, looks[name].marker
            ax.plot(chance, y, color=style.BLACK, marker="|", markersize=8, linestyle="none", label="_chance")
            ax.plot(rows["value"], np.full(len(rows), y - 0.3), ".", color=color, markersize=2.5, label="_pairs")
            ax.plot(rows["value"].mean(), y, color=color, marker=marker, linestyle="none", label=name)
        low = min(0.0, float(table.loc[table["metric"].str.startswith(metric), "value"].min()))
        ax.set(xlim=(1.05 * low - 0.03, 1.03), xlabel=_PANELS[metric])
        ax.grid(axis="y", linewidth=0.4, color="#DDDDDD")
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(names)), labels)
    axes[0].set_ylim(-0.6, len(names) - 0.4)
    handles = [
        Line2D([], [], color=style.GREY, marker="o", linestyle="none", label="mean over pairs of seeds"),
        Line2D([], [], color=style.GREY, marker=".", markersize=2.5, linestyle="none", label="a pair"),
        Line2D([], [], color=style.BLACK, marker="|", markersize=8, linestyle="none", label="chance"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=3)
    return fig
