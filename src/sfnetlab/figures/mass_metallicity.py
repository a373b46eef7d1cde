"""Features on the mass-metallicity relation: along it, or across it, at one mass."""

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.bpt import activation_colours, require_activations
from sfnetlab.surveys.lines import tremonti_2004

X_RANGE, Y_RANGE = (8.4, 11.6), (8.2, 9.4)
"""Of log10 of the stellar mass in Msun and of 12 + log(O/H)."""
_MOST_ACROSS, _PER_BIN = 26, 6
"""Bins along the mass, fewer where galaxies are few: about so many galaxies a bin along the relation."""
N_LEAST = 5
"""Galaxies in a bin that is drawn; the mean of fewer is noise."""


@style.paper_figure
def plot_mass_metallicity(
    log_mass: NDArray[np.floating],
    metallicity: NDArray[np.floating],
    activations: NDArray[np.floating],
    names: Sequence[str],
    unit: str,
) -> Figure:
    """A panel a feature: its mean activation in bins of stellar mass and metallicity, and Tremonti et al. 2004.

    Panels share one scale of colours, from 0 to the largest mean. A feature whose colour changes up and down at one
    mass knows about metallicity more than mass tells. N is how many of the galaxies activate the feature.

    Parameters
    ----------
    log_mass, metallicity : ndarray of shape (n_galaxies,)
        log10(M*/Msun) and 12 + log(O/H); galaxies in which one is not finite are left out.
    activations : ndarray of shape (n_galaxies, n_features)
        `interpret.equations.normalised_activations`, not negative.
    names : sequence of str, length n_features
    unit : str
        Of activations, in words: `interpret.equations.UNIT`.

    Raises
    ------
    ValueError
        If lengths differ, an activation is negative or not finite, or no bin holds `N_LEAST` galaxies.
    """
    n, n_features = len(log_mass), len(names)
    if metallicity.shape != (n,) or activations.shape != (n, n_features):
        raise ValueError(
            f"{n} masses, {len(metallicity)} metallicities, activations of shape {activations.shape} and {n_features} "
            f"names do not fit"
        )
    require_activations(activations)
    known = np.isfinite(log_mass) & np.isfinite(metallicity)
    x, y, strength = log_mass[known], metallicity[known], activations[known]
    fig, axes = style.panel_grid(n_features, "12 + log(O/H)", ["Tremonti+04"])
    colours = activation_colours()
    n_across = int(np.clip(np.sqrt(len(x) / _PER_BIN), 6, _MOST_ACROSS))
    n_up = round(n_across / np.sqrt(3))  # regular hexagons
    bins: list[PolyCollection] = []
    grid = np.linspace(*X_RANGE, 300)
    n_outside = np.count_nonzero((x < X_RANGE[0]) | (x > X_RANGE[1]) | (y < Y_RANGE[0]) | (y > Y_RANGE[1]))
    for i, (ax, name) in enumerate(zip(axes, names, strict=True)):
        bins.append(
            ax.hexbin(
                x, y, C=strength[:, i], reduce_C_function=np.mean, gridsize=(n_across, n_up),
                extent=(*X_RANGE, *Y_RANGE), mincnt=N_LEAST, cmap=colours, linewidths=0.2,
            )
        )  # fmt: skip
        ax.plot(grid, tremonti_2004(grid), color="black", linewidth=1.0, label="Tremonti+04")
        ax.set(xlim=X_RANGE, ylim=Y_RANGE, title=f"{name} (N = {np.count_nonzero(strength[:, i]):,})")
        ax.set_xlabel(r"log $M_*$ / $M_\odot$")
        if n_outside:
            ax.text(
                0.97, 0.03, f"{n_outside} outside", transform=ax.transAxes, ha="right", fontsize=style.SMALL_PT,
                color=style.GREY,
            )  # fmt: skip
    means = np.concatenate([np.asarray(drawn.get_array(), dtype=np.float64) for drawn in bins])
    if means.size == 0:
        raise ValueError(f"no bin of mass and metallicity holds {N_LEAST} of the {len(x)} galaxies")
    for drawn in bins:
        drawn.set_clim(0, max(float(means.max()), np.finfo(float).tiny))
    bar = fig.colorbar(bins[0], ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.02)
    bar.set_label(f"mean activation / its {unit}")
    style.share_legend(fig, axes)
    return fig
