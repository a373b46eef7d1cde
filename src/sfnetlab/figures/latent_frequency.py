"""How often latents are active: a histogram for each dictionary, dead latents apart."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.dictionaries import dictionaries, dictionary_looks, named_with_k
from sfnetlab.figures.findings import Figures, Findings

_BINS_PER_DECADE = 4


def draw(findings: Findings) -> Figures:
    """Draw all dictionaries in one figure."""
    latents = findings.gathered("latents", dictionaries(findings))
    if latents is not None:
        yield "latent_frequency", plot_latent_frequency(named_with_k(latents))


@style.paper_figure
def plot_latent_frequency(table: pd.DataFrame) -> Figure:
    """Draw a histogram of how often the latents of each dictionary are active, the share of dead ones at the left.

    Parameters
    ----------
    table : DataFrame
        Columns `features`, `kind` and `frequency` (share of rows on which the latent is active; 0: dead), a row a
        latent. The latents of several seeds of one name are taken together.

    Raises
    ------
    ValueError
        If columns or rows are missing, or a frequency is not in [0, 1].
    """
    style.require_columns(table, ("features", "kind", "frequency"), "the table of latents")
    if not table["frequency"].between(0, 1).all():
        raise ValueError("frequencies must lie in [0, 1] in every row of the table of latents")
    alive = np.log10(table.loc[table["frequency"] > 0, "frequency"].to_numpy())
    lowest = float(np.floor(np.min(alive, initial=-1)))
    edges = np.linspace(lowest, 0, 1 + round(-lowest * _BINS_PER_DECADE))
    looks = dictionary_looks(table)
    dead = table["frequency"].eq(0).groupby(table["features"]).mean()
    kinds = table.groupby("features")["kind"].first()
    labels = {
        name: style.wrapped(f"{style.method_name(name, str(kinds[name]))}: {100 * dead[name]:.2g} % dead", 34)
        for name in looks
    }
    height_in = max(2.7, 0.3 + style.legend_height_in(labels.values()))
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, height_in), layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=(1, 8))
    for i, (name, look) in enumerate(looks.items()):
        frequency = table.loc[table["features"] == name, "frequency"].to_numpy(dtype=float)
        share = np.histogram(np.log10(frequency[frequency > 0]), edges)[0] / len(frequency)
        left.plot(i, dead[name], color=look.color, marker=look.marker, clip_on=False, zorder=3)
        right.plot(
            10.0 ** ((edges[1:] + edges[:-1]) / 2), share, color=look.color, marker=look.marker, markersize=2.8,
            linestyle=look.linestyle, linewidth=1.0, label=labels[name],
        )  # fmt: skip
    left.set(xticks=[], xlabel="dead", xlim=(-1, len(looks)), ylabel="share of latents")
    for ax in (left, right):  # each on a scale of its own: few are in one bin where many are dead
        ax.set_ylim(bottom=0)
    right.set(
        xscale="log",
        ylabel="share of latents",
        xlabel=f"share of rows on which active (bins of 1/{_BINS_PER_DECADE} dex)",
    )
    right.set_xlim(10.0**lowest, 1)
    right.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), borderaxespad=0)
    return fig
