"""The comparison: test RMSE against features active per galaxy (L0), used in all, and that they effectively are.

Where the SFNet paper shows one budget, three stand here, with intervals, seeds and controls.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, compared
from sfnetlab.figures.kinds import (
    COMPONENTS,
    CONTROLS,
    DENSE,
    DICTIONARIES,
    NETWORKS,
    PREDICT_THE_MEAN,
    predicts_the_mean,
)
from sfnetlab.methods import TRAITS
from sfnetlab.metrics.method_scores import with_budget
from sfnetlab.metrics.selection import are_chosen, chosen_on_valid, k_at_budgets
from sfnetlab.metrics.tidy import HEAD, IN_SAMPLE, ON_SEEN
from sfnetlab.surveys.catalog import unit_of

_COLUMNS = ("features", "kind", "k", "seed", "probe", "n_features_used", "target", "column", "split", "metric", "value")

_Level = tuple[str, float, tuple[float, float] | None, style.MethodStyle]
"""Name, RMSE, interval and look of a control."""
_SUPERVISED = "† supervised; the others: unsupervised"


def draw(findings: Findings) -> Figures:
    """Draw a figure for each label column."""
    metrics = compared(findings)
    if metrics is None:
        return
    for name, target in findings.targets.items():
        for column in target.columns:
            what = metrics, name, column, unit_of(column)
            yield from style.drawn(f"rmse_vs_k-{name}-{column}", plot_rmse_vs_k, *what)


class _Panel(NamedTuple):
    """What one meaning of "few features" shows."""

    x_label: str
    title: str
    """Which probes."""
    curves: list[style.Curve]


@style.paper_figure
def plot_rmse_vs_k(metrics: pd.DataFrame, target: str, column: str, unit: str) -> Figure:
    """Draw the test RMSE of every method at equal budgets, one panel for each meaning of "few features".

    The left panel is about features active per galaxy: SFNet(k) with its own head and with a linear probe on all its
    features; SAEs and their null arms with k active latents and a ridge probe on all latents; PCA and PLS with k
    components. Where a table has no such probe, ridge stands in for linear and linear for ridge; the title says which.
    The middle panel is about features used in all, by a linear probe: the n best of SFNet(k) and of SAE(k), with the k
    that is best on valid galaxies; the first n components; the n best dimensions of each encoder and latents of each
    VAE. The right panel is about how many of them there effectively are, near copies counted once: of each method every
    linear probe on some of its features and its own head count; where several use the same effective number (median
    over runs), the one that is best on valid galaxies stands.

    Points are means over seeds, small dots the seeds, bars the 95 % interval over galaxies and runs. An arrowhead
    at the upper edge is what is higher than 1.6 times the mean's error, without this control than 10 times the least.
    Horizontal lines are the controls: the mean, photometry with the probe that is best on valid rows, and each encoder
    and VAE with ridge on all it gives.

    Parameters
    ----------
    metrics : DataFrame
        `metrics.parquet` of fit-probes: a row a number, of one experiment. `low` and `high` may be NaN or absent.
    target, column : str
        Which target and which of its columns to draw.
    unit : str
        Unit of the column, such as "dex"; "" for a pure number.

    Raises
    ------
    ValueError
        If columns or rows are missing, or a number appears twice (for example from two experiments).
    """
    rows = _rmse_rows(metrics, target, column, "test")
    of_target = metrics[metrics["target"] == target]
    panels = [
        _Panel("features active per galaxy (L0)", *_per_galaxy_curves(rows)),
        _Panel("features used in all", "linear probe on the n best", _in_all_curves(rows, k_at_budgets(of_target))),
        _Panel(
            "effective features (near copies once)",
            "best linear probe or head",
            _effective_curves(rows, of_target[of_target["split"] == "valid"]),
        ),
    ]
    if not any(panel.curves for panel in panels):
        raise style.EmptyFigureError(
            f"no method but controls has a linear probe or a head for target {target!r}, column {column!r}"
        )
    labels = {curve.label for panel in panels for curve in panel.curves}
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 3.3 + style.legend_height_in(labels) / 3), layout="constrained")
    axes: list[Axes] = list(fig.subplots(1, len(panels), sharey=True, squeeze=False)[0])
    levels = _controls(*(_rmse_rows(metrics, target, column, split) for split in ("test", "valid")))
    for ax, panel in zip(axes, panels, strict=True):
        for name, level, _, look in levels:
            ax.axhline(level, color=look.color, linestyle=look.linestyle, linewidth=0.9, label=f"_{name}")
        if panel.curves:
            style.draw_budget_panel(ax, panel.curves, style.wrapped(panel.x_label, 24))
        else:
            ax.text(0.5, 0.5, "no rows for this budget", transform=ax.transAxes, ha="center", fontsize=style.SMALL_PT)
            ax.set(xticks=[], xlabel=style.wrapped(panel.x_label, 24))
        ax.set_title(style.wrapped(panel.title, 28), fontsize=style.SMALL_PT)
    style.share_legend(fig, axes, _SUPERVISED if any("†" in label for label in labels) else None)
    axes[0].set_ylabel(style.wrapped(style.with_unit(f"test RMSE of {column}", unit), 34))
    _set_range_and_name_levels(axes, panels, levels)
    return fig


def _set_range_and_name_levels(axes: Sequence[Axes], panels: Sequence[_Panel], levels: Sequence[_Level]) -> None:
    """Cut the axis off above what is useless, mark what lies there, and name the controls at the right."""
    bottom, top = axes[0].get_ylim()
    least = min(float(curve.rows["y"].min()) for panel in panels for curve in panel.curves)
    highest = max((1.6 * level for name, level, _, _ in levels if name == PREDICT_THE_MEAN), default=10 * least)
    if top > highest:  # the margin below was a share of what is cut off
        lowest = min(ax.dataLim.y0 for ax in axes)
        bottom, top = lowest - 0.05 * (highest - lowest), highest
    axes[0].set_ylim(bottom, top)
    for ax, panel in zip(axes, panels, strict=True):
        _mark_what_is_above(ax, panel.curves, highest)
    labels = {style.wrapped(_level_text(name, y, interval), 24): (y, look.color) for name, y, interval, look in levels}
    # what lies above the panel is named at its edge: farther up a label would leave no room for the panel
    style.label_levels(axes[-1], {text: (min(y, top), color) for text, (y, color) in labels.items()})


def _mark_what_is_above(ax: Axes, curves: Sequence[style.Curve], highest: float) -> None:
    """Draw an arrowhead at the upper edge for each mean that is higher still."""
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
    """Return the rows of the RMSE of one column and split, `k` and `n_features_used` as floats, each number once."""
    style.require_columns(metrics, _COLUMNS, "the metrics table")
    rows = metrics[(metrics["metric"] == "rmse") & (metrics["split"] == split)]
    rows = rows[(rows["target"] == target) & (rows["column"] == column)]
    if rows.empty:
        known = sorted({(str(t), str(c)) for t, c in zip(metrics["target"], metrics["column"], strict=True)})
        raise ValueError(f"no {split} RMSE of target {target!r}, column {column!r}; the table has {known}")
    rows = rows.astype({"k": float, "n_features_used": float, "value": float}).assign(y=lambda t: t["value"])
    repeated = rows.duplicated(["features", "k", "seed", "probe", "n_features_used"])
    if repeated.any():
        first = rows.loc[repeated, ["features", "k", "seed", "probe", "n_features_used"]].iloc[0].to_dict()
        raise ValueError(f"{int(repeated.sum())} numbers appear twice, first {first}; give the rows of one experiment")
    return rows


def _per_galaxy_curves(rows: pd.DataFrame) -> tuple[str, list[style.Curve]]:
    """Return by which probes, and curves by k, the number of features that a galaxy activates."""
    with_all = _with_all_features(rows)
    curves: list[style.Curve] = []
    probes: dict[str, None] = {}
    for method in _methods(rows, NETWORKS):
        of_method = rows[rows["features"] == method.name]
        head = of_method[of_method["probe"] == HEAD]
        on_all = with_all[with_all["features"] == method.name]
        probe = "linear" if (on_all["probe"] == "linear").any() else "ridge"
        refitted = on_all[on_all["probe"] == probe]
        label, look = f"{method.label}, {probe} probe on all", replace(method.look, linestyle=":")
        curves += [
            style.Curve(method.label, method.look, head.assign(x=head["k"])),
            style.Curve(label, look, refitted.assign(x=refitted["k"]), is_filled=False),
        ]
        if len(head):
            probes["own head"] = None
    for method in _methods(rows, reversed(DICTIONARIES)):
        of_method = with_all[with_all["features"] == method.name]
        probe = "ridge" if (of_method["probe"] == "ridge").any() else "linear"
        of_probe = of_method[of_method["probe"] == probe]
        curves.append(style.Curve(method.label, method.look, of_probe.assign(x=of_probe["k"])))
        probes[f"{probe} on all {method.noun}"] = None
    components = _component_curves(rows)
    if components:
        probes["linear on the first components"] = None
    return "; ".join(probes), _drawable([*curves, *components])


def _in_all_curves(rows: pd.DataFrame, choices: pd.DataFrame) -> list[style.Curve]:
    """Return curves of linear probes by the number of features that they use in all; `choices` say with which k."""
    probed = _probed(rows)
    budgeted = probed[(probed["probe"] == "linear") & (probed["n_features_used"] < probed["most"])]
    budgeted = budgeted[are_chosen(budgeted.assign(budget=budgeted["n_features_used"]), choices)]
    curves: list[style.Curve] = []
    for method in _methods(rows, (*NETWORKS, *reversed(DICTIONARIES), *DENSE)):
        of_method = budgeted[budgeted["features"] == method.name]
        curves.append(style.Curve(method.label, method.look, of_method.assign(x=of_method["n_features_used"])))
    return _drawable([*curves, *_component_curves(rows)])


def _effective_curves(rows: pd.DataFrame, valid: pd.DataFrame) -> list[style.Curve]:
    """Return a curve a method, of linear probes and heads by the effective number of features that they use.

    Parameters
    ----------
    rows
        Test rows of the column.
    valid
        Rows on valid galaxies of all columns of its target.
    """
    choices = chosen_on_valid(_at_effective(valid), ("features", "x"), ("k", "probe", "budget"))
    standing = _at_effective(rows)
    standing = standing[are_chosen(standing, choices) & (standing["x"] > 0)]
    methods = _methods(standing, (*NETWORKS, *COMPONENTS, *reversed(DICTIONARIES), *DENSE))
    return _drawable(
        [style.Curve(method.label, method.look, standing[standing["features"] == method.name]) for method in methods]
    )


def _at_effective(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of sparse heads and of linear probes on few, at `x` the median of what runs effectively use."""
    rows = with_budget(rows[rows["probe"].isin([HEAD, "linear"])])
    is_network = (rows["probe"] == HEAD) & ~rows["kind"].isin(DENSE)
    rows = rows[is_network | rows["budget"].notna() | rows["kind"].isin(COMPONENTS)]
    by = ["features", "k", "probe", "budget"]
    return rows.assign(x=rows.groupby(by, dropna=False)["n_effective"].transform("median").round())


def _component_curves(rows: pd.DataFrame) -> list[style.Curve]:
    """Return curves of the first k components: every galaxy activates all of them, so both budgets are k."""
    curves: list[style.Curve] = []
    for method in _methods(rows, COMPONENTS):
        linear = rows[(rows["features"] == method.name) & (rows["probe"] == "linear")]
        curves.append(style.Curve(method.label, method.look, linear.assign(x=linear["n_features_used"])))
    return curves


def _drawable(curves: Sequence[style.Curve]) -> list[style.Curve]:
    return [curve._replace(label=style.wrapped(curve.label, 30)) for curve in curves if len(curve.rows) > 0]


class _Method(NamedTuple):
    """The feature tables of one name."""

    name: str
    kind: str
    look: style.MethodStyle
    noun: str
    """What its features are called."""

    @property
    def label(self) -> str:
        """What the legend calls it, with a mark where it is supervised."""
        return style.method_name(self.name, self.kind) + ("†" if TRAITS[self.kind].supervised else "")


def _methods(rows: pd.DataFrame, kinds: Iterable[str]) -> list[_Method]:
    """Return every method of some kinds, kind by kind, in the order of names."""
    methods: list[_Method] = []
    for kind in kinds:
        names = sorted(rows.loc[rows["kind"] == kind, "features"].unique())
        noun = TRAITS[kind].noun
        methods += [_Method(name, kind, style.method_style(name, kind, names), noun) for name in names]
    return methods


def _with_all_features(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of probes that used every feature of their table."""
    probed = _probed(rows)
    return probed[probed["n_features_used"] == probed["most"]]


def _probed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of probes fitted on train rows, with the `most` features that any of them used of its table."""
    probed = rows[(rows["probe"] != HEAD) & ~rows["probe"].str.endswith((IN_SAMPLE, ON_SEEN))]
    of_table = probed.groupby(["features", "k", "seed"], dropna=False)["n_features_used"]
    return probed.assign(most=of_table.transform("max"))


def _controls(rows: pd.DataFrame, valid: pd.DataFrame) -> list[_Level]:
    """Return name, RMSE, 95 % interval (means over seeds) and look of each horizontal line."""
    with_all = _with_all_features(rows)
    choices = chosen_on_valid(_with_all_features(valid), ("features",), ("probe",))
    chosen: list[tuple[str, style.MethodStyle, pd.DataFrame]] = []
    for method in _methods(with_all, CONTROLS):
        scores = with_all[with_all["features"] == method.name]
        if predicts_the_mean(scores).all():  # whatever the probe
            chosen.append((PREDICT_THE_MEAN, method.look, scores[scores["probe"] == scores["probe"].iloc[0]]))
        else:
            best = scores[are_chosen(scores, choices)]
            chosen.append((f"{method.name} ({best['probe'].iloc[0]})", method.look, best))
    for method in _methods(with_all, DENSE):
        ridge = with_all[(with_all["features"] == method.name) & (with_all["probe"] == "ridge")]
        if len(ridge) > 0:
            n = int(ridge["n_features_used"].iloc[0])
            chosen.append((f"{method.name}, all {n} (ridge)", method.look, ridge))
    controls: list[_Level] = []
    for label, look, scores in chosen:
        level = float(scores["y"].mean())
        has_interval = {"low", "high"} <= set(scores.columns) and scores[["low", "high"]].notna().to_numpy().all()
        interval = (float(scores["low"].mean()), float(scores["high"].mean())) if has_interval else None
        controls.append((label, level, interval, look))
    return controls
