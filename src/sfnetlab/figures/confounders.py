"""Which features follow nuisances, and what is left of their correlation with a target."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.network_features import feature_names, networks

N_FEATURES = 15


def draw(findings: Findings) -> Figures:
    """Draw a figure a network, where the catalogue has nuisances."""
    for network in networks(findings):
        nuisances = network.read("nuisances")
        if nuisances is not None:
            names = dict(list(feature_names(network).items())[:N_FEATURES])
            held_fixed = " and ".join(network.held_fixed)
            figure = plot_confounders(network.need("features"), nuisances, network.need("partial"), names, held_fixed)
            yield f"confounders-{network.spec.features}", figure


@style.paper_figure
def plot_confounders(
    features: pd.DataFrame, nuisances: pd.DataFrame, targets: pd.DataFrame, names: Mapping[int, str], held_fixed: str
) -> Figure:
    """Draw the Spearman correlations of features with nuisances, and what is left of those with each target.

    At the left is a heat map of features by nuisances; then the R² of all nuisances together on held-out galaxies; then
    a panel a target with the plain correlation (open) and that with other columns held fixed (filled), with 95 %
    intervals. Names of features that follow nuisances are bold with an asterisk.

    Parameters
    ----------
    features, nuisances, targets : DataFrame
        The fields of `interpret.confounders.Confounders`; `targets` may have no rows.
    names : mapping of feature to str
        The features to draw, from top to bottom, and what they are called.
    held_fixed : str
        What is held fixed, for the axis label.

    Raises
    ------
    ValueError
        If columns are missing, or a feature is not in the tables.
    """
    style.require_columns(features, ("feature", "r2_nuisances", "is_confounded"), "the table of confounded features")
    style.require_columns(nuisances, ("feature", "nuisance", "rho"), "the table of nuisances")
    chosen = list(names)
    by_feature = features.set_index("feature").reindex(chosen)
    if not chosen or by_feature["is_confounded"].isna().any():
        raise ValueError(f"features {chosen} are not all in the table of confounded features")
    rho = nuisances.pivot_table(index="feature", columns="nuisance", values="rho", sort=False, dropna=False)
    rho = rho.reindex(index=chosen, columns=list(nuisances["nuisance"].unique()))
    wanted = list(targets["target"].unique()) if len(targets) else []
    n, m = rho.shape
    labels = [f"{names[f]} *" if by_feature["is_confounded"][f] else names[f] for f in chosen]
    longest_in = max(style.text_width_pt(str(name)) for name in rho.columns) / 72
    width_ratios = [0.24 * m, 0.8, *(1.5 for _ in wanted)]
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 0.75 + max(longest_in, 0.5) + 0.2 * n), layout="constrained")
    axes = fig.subplots(1, 2 + len(wanted), sharey=True, squeeze=False, width_ratios=width_ratios)[0]
    heat = axes[0]
    heat.set_facecolor("#BBBBBB")
    image = heat.imshow(rho.to_numpy(dtype=float), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="none")
    heat.set_xticks(range(m), list(rho.columns), rotation=90)
    heat.set_yticks(range(n), labels)
    heat.tick_params(length=0)
    for text, feature in zip(heat.get_yticklabels(), chosen, strict=True):
        text.set_fontweight("bold" if by_feature["is_confounded"][feature] else "normal")
    fig.colorbar(image, ax=heat, location="top", label="Spearman ρ with nuisance", shrink=0.8, pad=0.02, aspect=25)
    y = np.arange(n)
    axes[1].barh(y, np.clip(by_feature["r2_nuisances"], 0, 1), color=style.GREY, height=0.6)
    axes[1].set(xlim=(0, 1), xlabel="R² of all\nnuisances")
    for ax, target in zip(axes[2:], wanted, strict=True):
        of_target = targets[targets["target"] == target].set_index("feature").reindex(chosen)
        for prefix, shift, face in (("", -0.15, "white"), ("partial_", 0.15, style.BLUE)):
            center = of_target[f"{prefix}rho"]
            ends = [center - of_target[f"{prefix}low"], of_target[f"{prefix}high"] - center]
            ax.errorbar(
                center, y + shift, xerr=ends, fmt="o", markersize=3.2, color=style.BLUE, elinewidth=0.9,
                label=f"at fixed {held_fixed}" if prefix else "plain", markerfacecolor=face,
            )  # fmt: skip
        ax.axvline(0, color=style.GREY, linewidth=0.6, label="_zero")
        ax.set(xlim=(-1.05, 1.05), xlabel=f"Spearman ρ,\n{target}")
    for ax in axes[1:]:
        ax.grid(axis="y", linewidth=0.4, color="#DDDDDD")
        ax.set_axisbelow(True)
    if wanted:
        handles, texts = axes[2].get_legend_handles_labels()
        fig.legend(handles, [style.wrapped(text, 60) for text in texts], loc="outside lower right", ncols=2)
    return fig
