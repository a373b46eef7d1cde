"""The mass-metallicity relation of what networks predict, and which features lie along it or across."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.bpt import activation_colours, require_activations
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.heads import Head, heads
from sfnetlab.figures.network_features import networks, on_diagram
from sfnetlab.interpret.equations import UNIT
from sfnetlab.interpret.mzr import TREMONTI_SCATTER_DEX, median_relation
from sfnetlab.surveys.catalog import measured_labels
from sfnetlab.surveys.lines import tremonti_2004

MASS, METALLICITY, SFR = "lgm_tot_p50", "oh_p50", "sfr_tot_p50"
X_RANGE, Y_RANGE = (8.4, 11.6), (8.2, 9.4)
"""Ranges of log10 of the stellar mass in Msun and of 12 + log(O/H)."""
_MOST_ACROSS, _PER_BIN = 26, 6
"""Bins along the mass, fewer where galaxies are few: about so many galaxies a bin along the relation."""
_SCATTER_RANGE = (0.0, 0.32)
"""Range of the scatter in bins of mass, in dex."""
N_LEAST = 5
"""Galaxies in a bin that is drawn; the mean of fewer is noise."""
N_LEAST_ON_RELATION = 50
"""Galaxies on a diagram of features; fewer do not fill its bins."""
QUANTITY_UNITS = {"log SFR": r"$M_\odot$ / yr", "log sSFR": "1 / yr"}
"""Quantities against which residuals are drawn."""
N_NETWORKS = 2
"""Networks beside the truth on the relation."""


def draw(findings: Findings) -> Figures:
    """Draw a figure a network of its features, and one of all networks that predict the metallicity."""
    for network in networks(findings):
        shown = on_diagram(findings, network)
        if shown is None:
            continue
        labels = measured_labels(shown.test)
        if not {MASS, METALLICITY} <= set(labels):
            continue
        mass, metallicity = labels[MASS].to_numpy(), labels[METALLICITY].to_numpy()
        if np.isfinite(mass + metallicity).sum() >= N_LEAST_ON_RELATION:
            name, names = f"mass_metallicity-{network.spec.features}", list(shown.names.values())
            yield from style.drawn(name, plot_mass_metallicity, mass, metallicity, shown.activations, names, UNIT)
    yield from _relation(findings)


def _relation(findings: Findings) -> Figures:
    """Draw the relation of the first networks that predict the metallicity, as stage fit-probes measured it."""
    bins, trends = (findings.comparison(f"mass_metallicity_{name}") for name in ("bins", "residuals"))
    if bins is None or trends is None:
        return
    drawn = [head for head in heads(findings) if len(_of_head(bins, head)) and len(_of_head(trends, head))][:N_NETWORKS]
    if not drawn:
        return
    predictions = {head.title: head.of(METALLICITY).set_index("id_str")["y_pred"] for head in drawn}
    ids = next(iter(predictions.values())).index
    known = findings.catalog.set_index("id_str").loc[ids, [MASS, METALLICITY, SFR]]
    values = {"true": known[METALLICITY].to_numpy()}
    values |= {title: predicted.loc[ids].to_numpy() for title, predicted in predictions.items()}
    bins_of, trends_of = (
        {"true": table[table["features"] == "true"]} | {head.title: _of_head(table, head) for head in drawn}
        for table in (bins, trends)
    )
    mass = known[MASS].to_numpy()
    quantities = {"log SFR": known[SFR].to_numpy(), "log sSFR": (known[SFR] - known[MASS]).to_numpy()}
    yield "mass_metallicity_relation", plot_relation(mass, values, bins_of, quantities, trends_of, TREMONTI_SCATTER_DEX)


def _of_head(rows: pd.DataFrame, head: Head) -> pd.DataFrame:
    """Return the rows about the table that a head reads."""
    spec = head.table.spec
    same_k = rows["k"].isna() if spec.k is None else rows["k"] == spec.k
    same_seed = rows["seed"].isna() if spec.seed is None else rows["seed"] == spec.seed
    return rows[(rows["features"] == spec.features) & same_k & same_seed]


@style.paper_figure
def plot_mass_metallicity(
    log_mass: NDArray[np.floating],
    metallicity: NDArray[np.floating],
    activations: NDArray[np.floating],
    names: Sequence[str],
    unit: str,
) -> Figure:
    """Draw the mean activation of each feature in bins of stellar mass and metallicity, and Tremonti et al. 2004.

    Panels share one scale of colours, from 0 to the largest mean. A feature whose colour changes upwards at one mass
    knows more of the metallicity than the mass tells. N is how many of the galaxies activate the feature.

    Parameters
    ----------
    log_mass, metallicity : ndarray of shape (n_galaxies,)
        log10(M*/Msun) and 12 + log(O/H); galaxies in which one is not finite are left out.
    activations : ndarray of shape (n_galaxies, n_features)
        `interpret.equations.normalised_activations`, not negative.
    names : sequence of str, length n_features
        What the features are called.
    unit : str
        Unit of activations, in words: `interpret.equations.UNIT`.

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
        raise style.EmptyFigureError(f"no bin of mass and metallicity holds {N_LEAST} of the {len(x)} galaxies")
    for drawn in bins:
        drawn.set_clim(0, max(float(means.max()), np.finfo(float).tiny))
    bar = fig.colorbar(bins[0], ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.02)
    bar.set_label(f"mean activation / its {unit}")
    style.share_legend(fig, axes)
    return fig


@style.paper_figure
def plot_relation(
    log_mass: NDArray[np.floating],
    metallicities: Mapping[str, NDArray[np.floating]],
    bins: Mapping[str, pd.DataFrame],
    quantities: Mapping[str, NDArray[np.floating]],
    trends: Mapping[str, pd.DataFrame],
    scatter_dex: float,
) -> Figure:
    """Draw the relation of true and of predicted metallicities with the true masses, its scatter and its residuals.

    A panel each has counts of galaxies, their median with the 16th and 84th percentiles, and Tremonti et al. 2004.
    Below is NMAD about the median in bins of mass with 95 % bootstrap intervals, that of the true metallicities in grey
    in every panel. A network that predicts the mean of what is possible scatters less than the truth.

    At the bottom are residuals about the median relation at a galaxy's mass against other quantities. Lines are running
    medians, the area reaches from the 16th to the 84th percentile of the true ones; the legend gives Spearman's rank
    correlation with its 95 % bootstrap interval.

    Parameters
    ----------
    log_mass : ndarray of shape (n_galaxies,)
        log10(M*/Msun).
    metallicities : mapping
        Label to 12 + log(O/H), (n_galaxies,); the first are the true ones.
    bins : mapping
        Label to `interpret.mzr.relation_bins`.
    quantities : mapping
        Names of `QUANTITY_UNITS` to (n_galaxies,).
    trends : mapping
        Label to `interpret.mzr.residual_trends`.
    scatter_dex : float
        Published scatter about the relation, a line.

    Raises
    ------
    ValueError
        If there are no metallicities, or not as many as masses.
    """
    if not metallicities or any(values.shape != log_mass.shape for values in metallicities.values()):
        shapes = {name: values.shape for name, values in metallicities.items()}
        raise ValueError(f"expected metallicities of {log_mass.shape} like the masses, got {shapes}")
    n = len(metallicities)
    heights = (0.7 + 1.45 * style.PAGE_WIDTH_IN / max(n, 2), 2.3 + 0.16 * n)
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, sum(heights)), layout="constrained")
    upper, lower = fig.subfigures(2, 1, squeeze=False, height_ratios=heights).flat
    _draw_relations(upper, log_mass, metallicities, bins, scatter_dex)
    residuals = {name: values - median_relation(log_mass, values)(log_mass) for name, values in metallicities.items()}
    _draw_residuals(lower, residuals, quantities, trends)
    return fig


def _draw_relations(
    fig: SubFigure,
    log_mass: NDArray[np.floating],
    metallicities: Mapping[str, NDArray[np.floating]],
    bins: Mapping[str, pd.DataFrame],
    scatter_dex: float,
) -> None:
    """Draw each relation above its scatter."""
    axes = fig.subplots(2, len(metallicities), sharex=True, sharey="row", height_ratios=[2.4, 1], squeeze=False)
    grid = np.linspace(*X_RANGE, 300)
    greys = ListedColormap(matplotlib.colormaps["Greys"](np.linspace(0.2, 0.9, 256)))
    n_bins = int(np.clip(1.5 * np.sqrt(len(log_mass)), 20, 60))
    first = next(iter(metallicities))
    for i, (name, values) in enumerate(metallicities.items()):
        upper, lower, binned = axes[0, i], axes[1, i], bins[name]
        counts, *edges = np.histogram2d(log_mass, values, bins=n_bins, range=(X_RANGE, Y_RANGE))
        upper.pcolormesh(
            *edges, np.ma.masked_less(counts.T, 1), cmap=greys, norm=LogNorm(1, max(10, counts.max())), rasterized=True
        )
        upper.plot(binned["log_mass"], binned["median"], color=style.VERMILION, label="median")
        for level in ("p16", "p84"):
            label = "16th and 84th percentile" if level == "p16" else "_p84"
            upper.plot(
                binned["log_mass"], binned[level], color=style.VERMILION, linewidth=0.8, linestyle="--", label=label
            )
        upper.plot(grid, tremonti_2004(grid), color=style.BLACK, linewidth=1.0, label="Tremonti+04")
        upper.set(xlim=X_RANGE, ylim=Y_RANGE, title=name)
        for other, color in {first: style.GREY, name: style.VERMILION}.items():
            table = bins[other]
            ends = [table["nmad"] - table["nmad_low"], table["nmad_high"] - table["nmad"]]
            lower.errorbar(table["log_mass"], table["nmad"], yerr=ends, color=color, linewidth=1.1, elinewidth=0.8)
        lower.axhline(scatter_dex, color=style.BLACK, linewidth=0.8, linestyle=":", label=f"σ = {scatter_dex:.2f} dex")
        lower.set(ylim=_SCATTER_RANGE, xlabel=r"log $M_*$ / $M_\odot$")
    axes[0, 0].set_ylabel("12 + log(O/H)")
    axes[1, 0].set_ylabel("NMAD (dex)")
    handles = [*axes[0, 0].get_legend_handles_labels()[0], *axes[1, 0].get_legend_handles_labels()[0]]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=1)


def _draw_residuals(
    fig: SubFigure,
    residuals: Mapping[str, NDArray[np.floating]],
    quantities: Mapping[str, NDArray[np.floating]],
    trends: Mapping[str, pd.DataFrame],
) -> None:
    """Draw residuals against each quantity."""
    axes = fig.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
    colors = (style.GREY, style.VERMILION, style.BLUE, style.GREEN, style.PURPLE)
    for ax, (quantity, x) in zip(axes, quantities.items(), strict=True):
        known = np.isfinite(x)
        for i, (name, values) in enumerate(residuals.items()):
            color, linestyle = colors[i % len(colors)], ("-", "--", "-.", ":")[i % 4]
            rows = np.array_split(np.argsort(x[known], kind="stable"), int(np.clip(known.sum() // 40, 1, 14)))
            center = [np.median(x[known][in_bin]) for in_bin in rows]
            low, median, high = np.array([np.quantile(values[known][in_bin], (0.16, 0.5, 0.84)) for in_bin in rows]).T
            trend = trends[name].set_index("quantity").loc[quantity]
            note = f"ρ = {trend['rho']:+.2f} [{trend['low']:+.2f}, {trend['high']:+.2f}]".replace("-", "−")
            if i == 0:
                ax.fill_between(center, low, high, color=color, alpha=0.15, linewidth=0)
            ax.plot(center, median, color=color, linestyle=linestyle, label=f"{name}: {note}")
        ax.axhline(0, color=style.BLACK, linewidth=0.6)
        ax.set_xlabel(style.with_unit(quantity, QUANTITY_UNITS[quantity]))
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=2)
    axes[0].set_ylabel("12 + log(O/H) −\nmedian at this mass (dex)")
