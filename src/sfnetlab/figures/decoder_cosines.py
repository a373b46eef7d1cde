"""How alike the atoms of a dictionary are: the cosine of each to its nearest, and the spectrum of all."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.dictionaries import dictionaries, dictionary_looks, named_with_k
from sfnetlab.figures.findings import Figures, Findings

_EDGES = np.linspace(-1, 1, 81)


def draw(findings: Findings) -> Figures:
    """Draw all dictionaries in one figure."""
    tables = dictionaries(findings)
    latents, spectra = (findings.gathered(name, tables) for name in ("latents", "spectrum"))
    if latents is not None and spectra is not None:
        yield from style.drawn("decoder_cosines", plot_decoder_cosines, named_with_k(latents), named_with_k(spectra))


@style.paper_figure
def plot_decoder_cosines(latents: pd.DataFrame, spectra: pd.DataFrame) -> Figure:
    """Draw a histogram of the largest cosine of each atom to another (left), and the atoms' singular values (right).

    Singular values are of the atoms' directions, means over seeds; latents of several seeds are taken together.

    Parameters
    ----------
    latents : DataFrame
        Columns `features`, `kind` and `max_cosine`, a row a latent; NaN, an atom of zeros, is left out.
    spectra : DataFrame
        Columns `features`, `kind`, `seed`, `component` (0 is the largest) and `singular_value`.

    Raises
    ------
    ValueError
        If columns or rows are missing, the tables are not of the same dictionaries, or atoms have one dimension.
    """
    style.require_columns(latents, ("features", "kind", "max_cosine"), "the table of latents")
    style.require_columns(spectra, ("features", "kind", "seed", "component", "singular_value"), "the table of spectra")
    if set(latents["features"]) != set(spectra["features"]):
        raise ValueError(
            f"latents of {sorted(set(latents['features']))} and spectra of {sorted(set(spectra['features']))}: "
            f"expected the same dictionaries"
        )
    if spectra["component"].max() < 1:
        raise style.EmptyFigureError("atoms of one dimension all point the same way or the opposite one")
    known = latents[latents["max_cosine"].notna()]
    labels = {
        str(name): style.wrapped(style.method_name(str(name), str(kind)), 22)
        for name, kind in latents.groupby("features")["kind"].first().items()
    }
    height_in = max(2.6, 0.3 + style.legend_height_in(labels.values()))
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, height_in), layout="constrained")
    left, right = fig.subplots(1, 2)
    for name, look in dictionary_looks(latents).items():
        cosine = known.loc[known["features"] == name, "max_cosine"]
        share = np.histogram(cosine, _EDGES)[0] / max(1, len(cosine))
        left.stairs(share, _EDGES, color=look.color, linestyle=look.linestyle, linewidth=1.1)
        values = spectra[spectra["features"] == name].groupby("component")["singular_value"].mean()
        right.plot(
            values.index + 1, values, color=look.color, linestyle=look.linestyle, linewidth=1.1, label=labels[name]
        )
    lowest = known["max_cosine"].min() if len(known) else 0.0
    left.set(xlim=(min(0.0, lowest), 1), xlabel="largest cosine to another atom", ylabel="share of latents")
    left.set_ylim(bottom=0)
    right.set(xscale="log", yscale="log", xlabel="component", ylabel="singular value of the directions")
    right.set_ylim(bottom=max(right.get_ylim()[0], 1e-3 * right.get_ylim()[1]))
    right.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), borderaxespad=0)
    return fig
