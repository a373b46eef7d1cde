"""How well autoencoders and PCA of the same size reconstruct test cutouts, and how many of their latents are in use."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sfnetlab.figures import style

PANELS = (
    ("fvu", "FVU of pixels\n(fraction of variance)"),
    ("psnr_db", "PSNR\n(dB)"),
    ("ssim", "SSIM"),
)
_ROW_IN = 0.2


@style.paper_figure
def plot_reconstruction_quality(quality: pd.DataFrame) -> Figure:
    """A row a method and number of latents, a panel a measure: the mean over seeds with its interval over galaxies.

    Small dots are the seeds. FVU is less where better; PSNR and SSIM are more where better.

    Parameters
    ----------
    quality : DataFrame
        Columns `features, kind, n_latents, seed, metric, value, low, high` of test galaxies; kind is "vae" or "pca".

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
            own = of_metric[
                (of_metric["features"] == method["features"]) & (of_metric["n_latents"] == method["n_latents"])
            ]
            peers = quality.loc[quality["kind"] == method["kind"], "features"].unique()
            look = style.method_style(method["features"], method["kind"], peers)
            mean = own[["value", "low", "high"]].mean()
            ax.hlines(place, mean["low"], mean["high"], color=look.color, linewidth=1.2)
            ax.plot(
                mean["value"], place, marker=look.marker, color=look.color, linestyle="none", label=method["features"]
            )
            if len(own) > 1:
                ax.plot(own["value"], [place + 0.25] * len(own), ".", markersize=2.5, color=look.color, label="_seeds")
        ax.set_xlabel(label)
        ax.tick_params(axis="y", which="both", length=0)
        ax.grid(axis="y", linewidth=0.3)
    axes[0].set_yticks(range(len(names)), labels=[style.wrapped(name, 24) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return fig


@style.paper_figure
def plot_latent_variances(latents: pd.DataFrame, active_variance: float) -> Figure:
    """Variance of each latent's posterior mean, and what the reconstruction gains by it, in order of variance.

    The line at the left is the variance above which a latent counts as active (Burda et al. 2016). At the right latents
    that the reconstruction is no worse without are left out.

    Parameters
    ----------
    latents : DataFrame
        Columns `features, latent, variance, fvu_gain`, a row a latent of one seed.
    active_variance
        Of posterior means over galaxies.
    """
    style.require_columns(latents, ("features", "latent", "variance", "fvu_gain"), "the table of latents")
    names = sorted(latents["features"].unique())
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 2.4 + 0.14 * len(names)), layout="constrained")
    left, right = fig.subplots(1, 2)
    for name in names:
        look = style.method_style(name, "vae", names)
        own = latents[latents["features"] == name].sort_values("variance", ascending=False)
        rank = range(1, len(own) + 1)
        settings = {"color": look.color, "marker": look.marker, "linestyle": look.linestyle, "markersize": 3.0}
        left.plot(rank, own["variance"], label=style.method_name(name, "vae"), **settings)
        right.plot(rank, own["fvu_gain"].where(own["fvu_gain"] > 0), label="_gain", **settings)
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
