"""The comparison: test RMSE against features active per galaxy (L0) and against features used in all.

Where the paper showed one budget, both stand here side by side, with intervals, seeds and controls.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.metrics.selection import has_nearest_k
from sfnetlab.metrics.tidy import HEAD, IN_SAMPLE

_COLUMNS = ("features", "kind", "k", "seed", "probe", "n_features_used", "target", "column", "split", "metric", "value")

_SUPERVISED = "† supervised; the others: unsupervised"
_DENSE = (("encoder", "", "dimensions"), ("external", "", "dimensions"), ("zoobot", "†", "dimensions"),
          ("vae", "", "latents"))  # fmt: skip
"""Kinds of which every feature of every galaxy is used: a mark, and what their features are called."""


@style.paper_figure
def plot_rmse_vs_k(
    metrics: pd.DataFrame, target: str, column: str, unit: str, noise_floor: float | None = None
) -> Figure:
    """Test RMSE of every method at equal budgets, one panel for each meaning of "few features".

    Left, features active per galaxy: SFNet(k) with its own head and with a linear probe on all its features; SAEs and
    their null arms with k active latents, a ridge probe on all latents (where the table has no such rows, ridge for the
    first and linear for the others; the legend says which); PCA and PLS with k components. Right, features used in all,
    linear probe: the n best of SFNet(k) and of SAE(k), k = n or the nearest that was trained (of two the larger); the
    first n components; the n best dimensions of each encoder and latents of each VAE. Points are means over seeds,
    small dots the seeds, bars the mean 95 % bootstrap interval over galaxies; what is higher than 1.6 times the mean's
    error is an arrowhead at the upper edge. Horizontal lines are the controls: the mean, photometry with the probe that
    is best on valid rows, and each encoder and VAE with ridge on all it gives.

    Parameters
    ----------
    metrics : DataFrame
        `metrics.parquet` of fit-probes: a row a number, of one experiment. `low` and `high` may be NaN or absent.
    target, column : str
        Which target and which of its columns to draw.
    unit : str
        Unit of the column, such as "dex"; "" for a pure number.
    noise_floor : float, optional
        RMSE below which nothing is left to learn, in the same unit.

    Raises
    ------
    ValueError
        If columns or rows are missing, or a number appears twice (for example from two experiments).
    """
    rows = _rmse_rows(metrics, target, column, "test")
    curves = (_per_galaxy_curves(rows), _in_all_curves(rows))
    if not any(curves):
        raise ValueError(f"no SFNet, SAE or PCA rows with a known probe for target {target!r}, column {column!r}")
    legend_in = max(style.legend_height_in(curve.label for curve in panel) for panel in curves)
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 3.15 + legend_in), layout="constrained")
    left, right = fig.subplots(1, 2, sharey=True)
    levels = _controls(rows, _rmse_rows(metrics, target, column, "valid"))
    if noise_floor is not None:
        floor = style.MethodStyle(style.BLACK, "", ":")
        levels.append(("noise floor", noise_floor, None, floor))
    for ax, panel, label in (
        (left, curves[0], "features active per galaxy (L0)"),
        (right, curves[1], "features used in all"),
    ):
        for name, level, _, look in levels:
            ax.axhline(level, color=look.color, linestyle=look.linestyle, linewidth=0.9, label=f"_{name}")
        if panel:
            has_supervised = any("†" in curve.label for curve in panel)
            style.draw_budget_panel(ax, panel, label, _SUPERVISED if has_supervised else None)
        else:
            ax.text(0.5, 0.5, "no rows for this budget", transform=ax.transAxes, ha="center", fontsize=style.SMALL_PT)
            ax.set(xticks=[], xlabel=label)
    left.set_ylabel(style.wrapped(style.with_unit(f"test RMSE of {column}", unit), 34))
    bottom, top = left.get_ylim()
    highest = 1.6 * max((level for name, level, _, _ in levels if name == "predict the mean"), default=np.inf)
    if top > highest:  # the margin below was a share of what is cut off
        lowest = min(ax.dataLim.y0 for ax in (left, right))
        bottom, top = lowest - 0.05 * (highest - lowest), highest
    left.set_ylim(bottom, top)
    for ax, panel in zip((left, right), curves, strict=True):
        _mark_what_is_above(ax, panel, highest)
    style.label_levels(
        right,
        {style.wrapped(_level_text(name, y, interval), 24): (y, look.color) for name, y, interval, look in levels},
    )
    return fig


def _mark_what_is_above(ax: Axes, curves: Sequence[style.Curve], highest: float) -> None:
    """An arrowhead at the upper edge for each mean that is higher still."""
    for curve in curves:
        means = curve.rows.groupby("x")["y"].mean()
        for x in means.index[means > highest]:
            ax.plot(
                float(x), 0.975, marker=10, color=curve.look.color, transform=ax.get_xaxis_transform(), label="_above",
            )  # fmt: skip


def _level_text(name: str, level: float, interval: tuple[float, float] | None) -> str:
    bounds = "" if interval is None else " [" + ", ".join(map(style.three_digits, interval)) + "]"
    return f"{name}: {style.three_digits(level)}{bounds}"


def _rmse_rows(metrics: pd.DataFrame, target: str, column: str, split: str) -> pd.DataFrame:
    """Rows of the RMSE of one column and split, `k` and `n_features_used` as floats, each number once."""
    style.require_columns(metrics, _COLUMNS, "the metrics table")
    rows = metrics[(metrics["metric"] == "rmse") & (metrics["split"] == split)]
    rows = rows[(rows["target"] == target) & (rows["column"] == column)]
    if rows.empty:
        known = sorted({(str(t), str(c)) for t, c in zip(metrics["target"], metrics["column"], strict=True)})
        raise ValueError(f"no {split} RMSE of target {target!r}, column {column!r}; the table has {known}")
    rows = rows.astype({"k": float, "n_features_used": float, "value": float}).rename(columns={"value": "y"})
    repeated = rows.duplicated(["features", "k", "seed", "probe", "n_features_used"])
    if repeated.any():
        first = rows.loc[repeated, ["features", "k", "seed", "probe", "n_features_used"]].iloc[0].to_dict()
        raise ValueError(f"{int(repeated.sum())} numbers appear twice, first {first}; give the rows of one experiment")
    return rows


def _per_galaxy_curves(rows: pd.DataFrame) -> list[style.Curve]:
    with_all = _with_all_features(rows)
    curves: list[style.Curve] = []
    for name, look, own in _methods(rows, "sfnet"):
        label = f"{style.method_name(name, 'sfnet')}†(k)"
        head = own[own["probe"] == HEAD]
        on_all = with_all[with_all["features"] == name]
        probe = "linear" if (on_all["probe"] == "linear").any() else "ridge"
        refitted = on_all[on_all["probe"] == probe]
        curves += [
            style.Curve(f"{label}, own head", look, head.assign(x=head["k"])),
            style.Curve(
                f"{label}, {probe} probe on all features",
                replace(look, linestyle=":"),
                refitted.assign(x=refitted["k"]),
                is_filled=False,
            ),
        ]
    for kind in ("sae", "null_sae"):
        for name, look, _ in _methods(rows, kind):
            own = with_all[with_all["features"] == name]
            probe = "ridge" if (own["probe"] == "ridge").any() else "linear"
            label = f"{style.method_name(name, kind)}(k), {probe} probe on all latents"
            curves.append(style.Curve(label, look, own[own["probe"] == probe].assign(x=own["k"])))
    return _drawable([*curves, *_component_curves(rows)])


def _in_all_curves(rows: pd.DataFrame) -> list[style.Curve]:
    probed = _probed(rows)
    budgeted = probed[(probed["probe"] == "linear") & (probed["n_features_used"] < probed["most"])]
    budgeted = budgeted[has_nearest_k(budgeted, "n_features_used")]
    curves: list[style.Curve] = []
    for kind, mark, noun in (
        ("sfnet", "†(k)", "features"), ("sae", "(k)", "latents"), ("null_sae", "(k)", "latents"), *_DENSE,
    ):  # fmt: skip
        for name, look, _ in _methods(rows, kind):
            own = budgeted[budgeted["features"] == name]
            label = f"{style.method_name(name, kind)}{mark}, linear probe on best k {noun}"
            curves.append(style.Curve(label, look, own.assign(x=own["n_features_used"])))
    return _drawable([*curves, *_component_curves(rows)])


def _component_curves(rows: pd.DataFrame) -> list[style.Curve]:
    """First k components, linear probe: all of them are active for every galaxy, so both budgets are k."""
    curves: list[style.Curve] = []
    for kind, mark in (("pca", ""), ("pls", "†")):
        for name, look, own in _methods(rows, kind):
            linear = own[own["probe"] == "linear"]
            label = f"{style.method_name(name, kind)}{mark}(k), linear probe on first k components"
            curves.append(style.Curve(label, look, linear.assign(x=linear["n_features_used"])))
    return curves


def _drawable(curves: Sequence[style.Curve]) -> list[style.Curve]:
    return [curve._replace(label=style.wrapped(curve.label, 46)) for curve in curves if len(curve.rows) > 0]


def _methods(rows: pd.DataFrame, kind: str) -> list[tuple[str, style.MethodStyle, pd.DataFrame]]:
    """Name, look and rows of every feature table of a kind."""
    names = sorted(rows.loc[rows["kind"] == kind, "features"].unique())
    return [(name, style.method_style(name, kind, names), rows[rows["features"] == name]) for name in names]


def _with_all_features(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of probes that used every feature of their table."""
    probed = _probed(rows)
    return probed[probed["n_features_used"] == probed["most"]]


def _probed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of probes that were fitted on train rows, with the `most` features that any of them used of its table."""
    probed = rows[(rows["probe"] != HEAD) & ~rows["probe"].str.endswith(IN_SAMPLE)]
    of_table = probed.groupby(["features", "k", "seed"], dropna=False)["n_features_used"]
    return probed.assign(most=of_table.transform("max"))


def _controls(
    rows: pd.DataFrame, valid: pd.DataFrame
) -> list[tuple[str, float, tuple[float, float] | None, style.MethodStyle]]:
    """Name, RMSE, 95 % interval (means over seeds) and look of each horizontal line."""
    with_all, valid_with_all = _with_all_features(rows), _with_all_features(valid)
    chosen = [
        ("predict the mean", look, own[own["probe"] == own["probe"].iloc[0]])
        for _, look, own in _methods(with_all, "mean")
    ]
    for name, look, own in _methods(with_all, "photometry"):
        best = own[own["probe"] == _best_probe(valid_with_all[valid_with_all["features"] == name])]
        chosen.append((f"{name}, best probe ({best['probe'].iloc[0]})", look, best))
    for kind, _, noun in _DENSE:
        for name, look, own in _methods(with_all, kind):
            ridge = own[own["probe"] == "ridge"]
            if len(ridge) > 0:
                chosen.append((f"{name}, ridge on all {int(ridge['n_features_used'].iloc[0])} {noun}", look, ridge))
    controls: list[tuple[str, float, tuple[float, float] | None, style.MethodStyle]] = []
    for label, look, own in chosen:
        level = float(own["y"].mean())
        has_interval = {"low", "high"} <= set(own.columns) and own[["low", "high"]].notna().to_numpy().all()
        interval = (float(own["low"].mean()), float(own["high"].mean())) if has_interval else None
        controls.append((label, level, interval, look))
    return controls


def _best_probe(valid: pd.DataFrame) -> str:
    """The probe with the lowest mean over seeds on valid rows, so that test rows choose nothing."""
    return str(valid.groupby("probe")["y"].mean().idxmin())
