"""How the activations of features go together."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, rows_of
from sfnetlab.figures.network_features import feature_names, networks
from sfnetlab.metrics.association import correlation_matrix
from sfnetlab.metrics.tables import columns_of

_NUMBER_IN = 0.27
"""Side of a cell in which a two-digit number fits."""


N_FEATURES = 10


def draw(findings: Findings) -> Figures:
    """Draw a figure a network, of its most used features on the test galaxies."""
    for network in networks(findings):
        names = dict(list(feature_names(network).items())[:N_FEATURES])
        values = network.values(rows_of(findings.catalog, "test")["id_str"])
        correlation = correlation_matrix(columns_of(values, np.array(list(names))))
        figure = plot_correlation_matrix(correlation, list(names.values()), is_clustered=False)
        yield f"correlation_matrix-{network.spec.features}", figure


@style.paper_figure
def plot_correlation_matrix(correlation: NDArray[np.floating], names: Sequence[str], *, is_clustered: bool) -> Figure:
    """Draw the Pearson correlations of activations, printed where they fit; a grey cell is a constant feature.

    Activations are taken as they are: if those of each galaxy were divided by their length first, features that are
    independent would look opposed.

    Parameters
    ----------
    correlation : ndarray of shape (d, d)
        `metrics.association.correlation_matrix` of the most used features; NaN where a feature is constant.
    names : sequence of str, length d
        What the features are called.
    is_clustered : bool
        Whether features with large |correlation| stand beside each other (average linkage of 1 - |r|); else they stand
        in the given order.

    Raises
    ------
    ValueError
        If shapes do not fit, there is no feature, or a value lies outside [-1, 1].
    """
    d = len(names)
    if correlation.shape != (d, d) or d == 0:
        raise ValueError(f"expected a correlation matrix of ({d}, {d}) for {d} names, got {correlation.shape}")
    if (np.abs(correlation) > 1 + 1e-6).any():
        raise ValueError("correlations must lie in [-1, 1]")
    order = _leaves(correlation) if is_clustered and d > 2 else np.arange(d)
    shown = correlation[np.ix_(order, order)]
    margin_in = 0.2 + max(style.text_width_pt(name) for name in names) / 72
    side_in = min(style.PAGE_WIDTH_IN - margin_in - 0.7, max(style.COLUMN_WIDTH_IN - margin_in - 0.7, _NUMBER_IN * d))
    fig = Figure(figsize=(side_in + margin_in + 0.7, side_in + margin_in), layout="constrained")
    ax = fig.add_subplot()
    ax.set_facecolor("#BBBBBB")
    image = ax.imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="none")
    if side_in / d >= 0.95 * _NUMBER_IN:
        for i, j in np.argwhere(np.isfinite(shown)):
            text = f"{shown[i, j]:.2f}".replace("0.", ".").replace("-", "−")
            color = "white" if abs(shown[i, j]) > 0.6 else "black"
            ax.text(j, i, text, ha="center", va="center", color=color, fontsize=style.SMALL_PT)
    step = max(1, int(np.ceil(d * 0.12 / side_in)))
    places = np.arange(0, d, step)
    labels = [names[order[place]] for place in places]
    ax.set_xticks(places, labels, rotation=90)
    ax.set_yticks(places, labels)
    ax.tick_params(length=0)
    fig.colorbar(image, ax=ax, label="Pearson correlation of activations", shrink=0.8, pad=0.02)
    return fig


def _leaves(correlation: NDArray[np.floating]) -> NDArray[np.intp]:
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1 - np.abs(np.nan_to_num(correlation))
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform((distance + distance.T) / 2), method="average", optimal_ordering=True)
    return leaves_list(tree).astype(np.intp)
