"""How well autoencoders and PCA of the same size reconstruct test cutouts, and how many of their latents are in use."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, TableFindings
from sfnetlab.metrics.images import ACTIVE_VARIANCE

PANELS = (
    ("fvu", "FVU of pixels\n(fraction of variance)"),
    ("psnr_db", "PSNR\n(dB)"),
    ("ssim", "SSIM"),
)
_ROW_IN = 0.2
_PCA = "pca"
"""What stands for it in the column `objective`; it looks like features of that kind."""
PIXEL_PCA = "PCA of pixels"
"""What figures call the control of autoencoders."""


class Autoencoder(NamedTuple):
    """An autoencoder of cutouts: its feature table, what held its latents to a prior, and how many there are."""

    table: TableFindings
    objective: str
    n_latents: int


def autoencoders(findings: Findings) -> Sequence[Autoencoder]:
    """Return the typical run of each autoencoder, the smallest codes first."""
    found: list[Autoencoder] = []
    for table in findings.typical():
        quality = table.read("quality")
        if quality is not None:
            first = quality[quality["objective"] != _PCA].iloc[0]
            found.append(Autoencoder(table, str(first["objective"]), int(first["n_latents"])))
    return sorted(found, key=lambda autoencoder: autoencoder.n_latents)


def draw(findings: Findings) -> Figures:
    """Draw all autoencoders in one figure, and their latents in a figure a number of latents."""
    quality = findings.gathered("quality")
    if quality is None:
        return
    yield "reconstruction_quality", plot_reconstruction_quality(_on_test_galaxies(quality))
    for n_latents, group in groupby(autoencoders(findings), key=lambda autoencoder: autoencoder.n_latents):
        latents = findings.gathered("latents", [autoencoder.table for autoencoder in group])
        if latents is not None:
            yield f"latent_variances-d{n_latents}", plot_latent_variances(latents, ACTIVE_VARIANCE)


def _on_test_galaxies(quality: pd.DataFrame) -> pd.DataFrame:
    """Return the test scores of every autoencoder, and of the PCA of each number of latents once."""
    is_pca = quality["objective"] == _PCA
    components = quality[is_pca].assign(features=PIXEL_PCA, kind=_PCA, seed=None)
    table = pd.concat([quality[~is_pca], components], ignore_index=True).astype({"seed": "Int64"})
    return table[table["split"] == "test"].drop_duplicates(["features", "n_latents", "seed", "metric"])


@style.paper_figure
def plot_reconstruction_quality(quality: pd.DataFrame) -> Figure:
    """Draw each measure of reconstructions, a panel a measure and a row a method and number of latents.

    Markers are means over seeds with intervals over galaxies and runs (of one run none), small dots the seeds. FVU is
    better where it is less, PSNR and SSIM where they are more.

    Parameters
    ----------
    quality : DataFrame
        Scores of test galaxies: columns `features, kind, n_latents, seed, metric, value, low, high`.

    Raises
    ------
    ValueError
        If columns, rows or a measure are missing.
    """
    wanted = ("features", "kind", "n_latents", "seed", "metric", "value", "low", "high")
    style.require_columns(quality, wanted, "the table of reconstructions")
    methods = quality.drop_duplicates(["features", "n_latents"]).sort_values(["n_latents", "kind", "features"])
    names = [
        f"{style.method_name(row['features'], row['kind'])}, d = {row['n_latents']}"
        for row in methods.to_dict("records")
    ]
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 0.75 + _ROW_IN * len(names)), layout="constrained")
    axes = fig.subplots(1, len(PANELS), sharey=True)
    for ax, (metric, label) in zip(axes, PANELS, strict=True):
        of_metric = quality[quality["metric"] == metric]
        if of_metric.empty:
            raise ValueError(f"the table of reconstructions has no metric {metric!r}")
        for place, method in enumerate(methods.to_dict("records")):
            of_method = of_metric[
                (of_metric["features"] == method["features"]) & (of_metric["n_latents"] == method["n_latents"])
            ]
            peers = quality.loc[quality["kind"] == method["kind"], "features"].unique()
            look = style.method_style(method["features"], method["kind"], peers)
            value, low, high = style.over_runs(of_method)
            ax.hlines(place, low, high, color=look.color, linewidth=1.2)
            ax.plot(value, place, marker=look.marker, color=look.color, linestyle="none", label=method["features"])
            if len(of_method) > 1:
                ax.plot(
                    of_method["value"],
                    [place + 0.25] * len(of_method),
                    ".",
                    markersize=2.5,
                    color=look.color,
                    label="_seeds",
                )
        ax.set_xlabel(label)
        ax.tick_params(axis="y", which="both", length=0)
        ax.grid(axis="y", linewidth=0.3)
    axes[0].set_yticks(range(len(names)), labels=[style.wrapped(name, 24) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return fig


@style.paper_figure
def plot_latent_variances(latents: pd.DataFrame, active_variance: float) -> Figure:
    """Draw the variance of each latent's posterior mean, and what the reconstruction gains by it, by rank of variance.

    The line at the left is the variance above which a latent counts as active (Burda et al. 2016). The right panel
    leaves out latents without which the reconstruction is no worse.

    Parameters
    ----------
    latents : DataFrame
        Columns `features, kind, latent, variance, fvu_gain`, a row a latent of one seed.
    active_variance : float
        Variance of posterior means over galaxies.

    Raises
    ------
    ValueError
        If columns or rows are missing.
    """
    style.require_columns(latents, ("features", "kind", "latent", "variance", "fvu_gain"), "the table of latents")
    names = {str(name): str(kind) for name, kind in latents.groupby("features")["kind"].first().items()}
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 2.4 + 0.14 * len(names)), layout="constrained")
    left, right = fig.subplots(1, 2)
    for name, kind in names.items():
        look = style.method_style(name, kind, names)
        of_method = latents[latents["features"] == name].sort_values("variance", ascending=False)
        rank = range(1, len(of_method) + 1)
        settings = {"color": look.color, "marker": look.marker, "linestyle": look.linestyle, "markersize": 3.0}
        left.plot(rank, of_method["variance"], label=style.method_name(name, kind), **settings)
        right.plot(rank, of_method["fvu_gain"].where(of_method["fvu_gain"] > 0), label="_gain", **settings)
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.axhline(active_variance, color=style.GREY, linewidth=0.8, linestyle=":", label="_active")
    left.annotate(
        "active above", (1, active_variance), xytext=(2, 2), textcoords="offset points", fontsize=style.SMALL_PT
    )
    left.set(yscale="log", xlabel="latent, in order of variance", ylabel="variance of posterior means")
    right.set(yscale="log", xlabel="latent, in order of variance", ylabel="rise of test FVU without it")
    fig.legend(loc="outside lower center", ncols=3)
    return fig
