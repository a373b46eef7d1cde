"""The latents of dictionaries: how often they are active, how alike their atoms are, and the spectrum of these."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, dictionaries

_BINS_PER_DECADE = 4
_COSINES = np.linspace(-1, 1, 41)


def draw(findings: Findings) -> Figures:
    """Draw all dictionaries in one figure."""
    tables = dictionaries(findings)
    latents, spectra = (findings.gathered(name, tables) for name in ("latents", "spectrum"))
    if latents is not None and spectra is not None:
        yield "latents", plot_latents(style.named_with_k(latents), style.named_with_k(spectra))


@style.paper_figure
def plot_latents(latents: pd.DataFrame, spectra: pd.DataFrame) -> Figure:
    """Draw histograms of latents by frequency and by the largest cosine of their atoms, and the atoms' spectrum.

    The legend has the share of latents that are dead; shares are of all latents at the left, of those with an atom in
    the middle. Singular values are of the atoms' directions, means over seeds; latents of several seeds are taken
    together.

    Parameters
    ----------
    latents : DataFrame
        Columns `features`, `kind`, `frequency` (share of rows on which the latent is active; 0: dead) and `max_cosine`
        (NaN, an atom of zeros, is left out), a row a latent.
    spectra : DataFrame
        Columns `features`, `kind`, `seed`, `component` (0 is the largest) and `singular_value`.

    Raises
    ------
    ValueError
        If columns or rows are missing, a frequency is not in [0, 1], or the tables are not of the same dictionaries.
    """
    style.require_columns(latents, ("features", "kind", "frequency", "max_cosine"), "the table of latents")
    style.require_columns(spectra, ("features", "kind", "seed", "component", "singular_value"), "the table of spectra")
    if not latents["frequency"].between(0, 1).all():
        raise ValueError("frequencies must lie in [0, 1] in every row of the table of latents")
    if set(latents["features"]) != set(spectra["features"]):
        raise ValueError(
            f"latents of {sorted(set(latents['features']))} and spectra of {sorted(set(spectra['features']))}: "
            f"expected the same dictionaries"
        )
    looks = style.looks_of(latents)
    dead = latents["frequency"].eq(0).groupby(latents["features"]).mean()
    kinds = latents.groupby("features")["kind"].first()
    labels = {
        name: style.wrapped(f"{style.method_name(name, str(kinds[name]))}: {100 * dead[name]:.2g} % dead", 36)
        for name in looks
    }
    legend_in = style.legend_height_in(labels.values()) / 2 + 0.1
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 2.4 + legend_in), layout="constrained")
    often, alike, spectrum = fig.subplots(1, 3)
    _draw_frequencies(often, latents, looks, labels)
    known = latents[latents["max_cosine"].notna()]
    for name, look in looks.items():
        cosine = known.loc[known["features"] == name, "max_cosine"]
        share = np.histogram(cosine, _COSINES)[0] / max(1, len(cosine))
        alike.stairs(share, _COSINES, color=look.color, linestyle=look.linestyle, linewidth=1.0)
        values = spectra[spectra["features"] == name].groupby("component")["singular_value"].mean()
        spectrum.plot(values.index + 1, values, color=look.color, linestyle=look.linestyle, linewidth=1.0)
    lowest = known["max_cosine"].min() if len(known) else 0.0
    alike.set(xlim=(min(0.0, lowest), 1), xlabel="largest cosine to another atom", ylabel="share of atoms")
    alike.set_ylim(bottom=0)
    spectrum.set(xscale="log", yscale="log", xlabel="component", ylabel="singular value of the directions")
    spectrum.set_ylim(bottom=max(spectrum.get_ylim()[0], 1e-3 * spectrum.get_ylim()[1]))
    fig.legend(handles=often.get_legend_handles_labels()[0], loc="outside lower center", ncols=2)
    return fig


def _draw_frequencies(
    ax: Axes, latents: pd.DataFrame, looks: dict[str, style.MethodStyle], labels: dict[str, str]
) -> None:
    """Draw how often latents are active, in bins of equal width in the logarithm; the dead have no bin."""
    alive = np.log10(latents.loc[latents["frequency"] > 0, "frequency"].to_numpy())
    lowest = float(np.floor(np.min(alive, initial=-1)))
    edges = np.linspace(lowest, 0, 1 + round(-lowest * _BINS_PER_DECADE))
    for name, look in looks.items():
        frequency = latents.loc[latents["features"] == name, "frequency"].to_numpy(dtype=float)
        share = np.histogram(np.log10(frequency[frequency > 0]), edges)[0] / len(frequency)
        ax.plot(
            10.0 ** ((edges[1:] + edges[:-1]) / 2), share, color=look.color, marker=look.marker, markersize=2.8,
            linestyle=look.linestyle, linewidth=1.0, label=labels[name],
        )  # fmt: skip
    ax.set(
        xscale="log", xlim=(10.0**lowest, 1), xlabel=f"share of galaxies (bins of 1/{_BINS_PER_DECADE} dex)",
        ylabel="share of latents",
    )  # fmt: skip
    ax.set_ylim(bottom=0)
