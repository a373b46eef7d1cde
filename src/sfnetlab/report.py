"""The comparison as tables to read: text, LaTeX in the form of the SFNet paper, and which differences are significant.

One row a method, test scores with their intervals over galaxies and runs and both spreads.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import pandas as pd

from sfnetlab.methods import TRAITS, kinds_of
from sfnetlab.metrics.effective import MERGED
from sfnetlab.metrics.method_scores import MANY_CLASSES, TWO_CLASSES
from sfnetlab.metrics.runs import NEEDS_RUNS
from sfnetlab.metrics.selection import are_chosen
from sfnetlab.metrics.tidy import EFFECTIVE, HEAD, ON_SEEN
from sfnetlab.probes import PROBES, ProbeTask, probes_of

BRACKETS = "[95 % interval over galaxies and runs] (standard deviation between runs, between samples of galaxies)"
SIGNIFICANT = 0.05


def comparison_table(methods: pd.DataFrame) -> pd.DataFrame:
    """Test RMSE of every method, a row a method and label column.

    Parameters
    ----------
    methods : DataFrame
        `methods.parquet` of fit-probes: `metrics.method_scores.COLUMNS`.

    Returns
    -------
    DataFrame
        `target, column, features, kind, supervised, k, n_features_used, n_effective, participation, probe, n_seeds,
        rmse, low, high, seed_sd, galaxy_sd`. `supervised` says that the features themselves were trained on a label;
        `low` and `high` are the 95 % interval over galaxies and runs, NaN where there is one run; `seed_sd` is the
        standard deviation from run to run (of dictionaries: from encoder to encoder), `galaxy_sd` that from one sample
        of as many galaxies to the next; `n_features_used`, `n_effective` and `participation` (`metrics.effective`) are
        medians over seeds. Where an encoder has several dictionaries there are `n_dictionaries`, how many, and
        `dictionary_sd`, the standard deviation between them, too.
    """
    return _scores(methods, ["rmse"], "values")


def class_table(methods: pd.DataFrame) -> pd.DataFrame:
    """Test scores of every classifier of every method.

    Returns
    -------
    DataFrame
        As `comparison_table`, `target` being the name of the classes, with `auc, auc_low, auc_high, auc_seed_sd,
        auc_galaxy_sd` and the same of average_precision, f1, accuracy and balanced_accuracy. The classifier "majority"
        uses no features and stands in it once, as if it were a feature table.
    """
    return _scores(_with_one_control(methods), list(TWO_CLASSES), "two_classes")


def label_table(methods: pd.DataFrame) -> pd.DataFrame:
    """Test scores of every classifier among many classes of every method: `class_table` for `MANY_CLASSES`."""
    return _scores(_with_one_control(methods), list(MANY_CLASSES), "many_classes")


def _columns_of(task: ProbeTask) -> list[str]:
    """Columns of a table of scores: the network's own head, then the probes that use features."""
    probes = [kind.name for kind in probes_of(task) if not kind.is_control]
    return [HEAD, *probes] if task == "values" else probes


def _with_one_control(methods: pd.DataFrame) -> pd.DataFrame:
    """The scores with those of probes without features once, as if each were a feature table without seeds."""
    is_control = methods["probe"].isin([kind.name for kind in PROBES if kind.is_control])
    control = methods[is_control & ~methods.duplicated(["target", "column", "metric", "probe"])]
    about = {"features": control["probe"], "kind": "mean", "k": None, "n_seeds": 1, "n_dictionaries": 1}
    return pd.concat([control.assign(**about).astype(methods.dtypes), methods[~is_control]])


def _scores(methods: pd.DataFrame, names: list[str], task: ProbeTask) -> pd.DataFrame:
    """The scores of these names; with several, their names precede `low`, `high`, `seed_sd` and `galaxy_sd`."""
    by = ["target", "column", "features", "kind", "k", "budget", "n_features_used", *EFFECTIVE, "probe", "n_seeds"]
    spreads = [("low", "low"), ("high", "high"), ("run_sd", "seed_sd"), ("galaxy_sd", "galaxy_sd")]
    if (methods["n_dictionaries"] > 1).any():
        by.append("n_dictionaries")
        spreads.insert(3, ("dictionary_sd", "dictionary_sd"))
    parts = []
    for name in names:
        prefix = "" if len(names) == 1 else f"{name}_"
        columns = {"value": name} | {number: f"{prefix}{called}" for number, called in spreads}
        of_name = methods[methods["metric"] == name]
        parts.append(of_name.set_index(by)[list(columns)].rename(columns=columns))
    table = pd.concat(parts, axis=1).reset_index()
    trained = methods.loc[methods["probe"] == HEAD, "features"].unique()
    learnt = table["kind"].isin([kind for kind, traits in TRAITS.items() if traits.supervised])
    table.insert(4, "supervised", table["features"].isin(trained) | learnt)
    rank = table["kind"].map({kind: traits.rank for kind, traits in TRAITS.items()})
    probe_rank = table["probe"].map({probe: place for place, probe in enumerate(_columns_of(task))})
    ordered = table.assign(rank=rank, probe_rank=probe_rank).sort_values(
        ["target", "column", "rank", "features", "k", "n_features_used", "probe_rank"], kind="stable"
    )
    return ordered.drop(columns=["rank", "probe_rank", "budget"]).reset_index(drop=True)


# --- plain text -------------------------------------------------------------------------------------------------------


def format_comparison(table: pd.DataFrame) -> str:
    """`comparison_table` as plain text, a block for each label column."""
    blocks = []
    for (target, column), rows in table.groupby(["target", "column"], sort=False):
        title = f"test RMSE of {column} (target {target}): mean over runs {BRACKETS}"
        blocks.append(f"{title}\n{_block(rows, 'values', _rmse_cell)}")
    return "\n\n".join(blocks)


def format_classes(table: pd.DataFrame) -> str:
    """`class_table` as plain text, a block for each pair of classes."""
    return "\n\n".join(
        f"classes {target} ({column}): test AUC {BRACKETS}, average precision, F1 at a threshold "
        f"chosen on valid; means over runs\n"
        f"{_block(rows, 'two_classes', _class_cell)}"
        for (target, column), rows in table.groupby(["target", "column"], sort=False)
    )


def format_labels(table: pd.DataFrame) -> str:
    """`label_table` as plain text, a block for each set of classes."""
    return "\n\n".join(
        f"classes {target} ({column}): test balanced accuracy {BRACKETS}, accuracy; means over runs\n"
        f"{_block(rows, 'many_classes', _label_cell)}"
        for (target, column), rows in table.groupby(["target", "column"], sort=False)
    )


def _block(rows: pd.DataFrame, task: ProbeTask, cell: Callable[[Mapping[Hashable, Any]], str]) -> str:
    """A line a method, a column a probe; what a control scores stands in the first column."""
    probes = _columns_of(task)
    column_of = {kind.name: probes[0] for kind in probes_of(task) if kind.is_control}
    lines = [("features", "L0", "in all", "effective", "seeds", *probes)]
    for (features, k, used), methods in rows.groupby(["features", "k", "n_features_used"], sort=False, dropna=False):
        cells = {column_of.get(method["probe"], method["probe"]): cell(method) for method in methods.to_dict("records")}
        active = "" if pd.isna(k) else str(k)
        name = f"{features} *" if methods["supervised"].any() else features
        effective = _effective(methods.iloc[0])
        cells_of_probes = (cells.get(probe, "") for probe in probes)
        lines.append((name, active, str(used), effective, _n_runs(methods), *cells_of_probes))
    filled = [n for n, cells in enumerate(zip(*lines, strict=True)) if n < 5 or any(cells[1:])]  # probes may be off
    lines = [tuple(line[n] for n in filled) for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    text.append(
        "L0: features active for each galaxy; in all: features used for the whole sample; effective: these with near "
        "copies (|r| > 0.8) counted once (participation ratio of their covariance)\n"
        "* features learnt with a label; PCA and SAEs never see one, but their encoder may have, and PLS chooses by one"
    )
    if "n_dictionaries" in rows and (rows["n_dictionaries"] > 1).any():
        text.append(
            "seeds a x b: b dictionaries on the encoder of each of a seeds; of three standard deviations the first is "
            "between encoders, the second between dictionaries on the same encoder"
        )
    return "\n".join(text)


def _n_runs(methods: pd.DataFrame) -> str:
    """How many seeds there are, and how many dictionaries on each if there are several."""
    n_seeds, n_dictionaries = (
        int(methods[name].max()) if name in methods else 1 for name in ("n_seeds", "n_dictionaries")
    )
    return f"{n_seeds}" if n_dictionaries == 1 else f"{n_seeds} x {n_dictionaries}"


def _effective(method: "pd.Series[Any]") -> str:
    """How many features are used, near copies counted once, and in brackets their participation ratio."""
    n, participation = method["n_effective"], method["participation"]
    if pd.isna(n):
        return ""
    return f"{n:g}" if pd.isna(participation) else f"{n:g} ({participation:.1f})"


def _rmse_cell(method: Mapping[Hashable, Any]) -> str:
    return f"{method['rmse']:.4f} {_spread(method, '', 4)}"


def _class_cell(method: Mapping[Hashable, Any]) -> str:
    return f"{method['auc']:.3f} {_spread(method, 'auc_', 3)} {method['average_precision']:.3f} {method['f1']:.2f}"


def _label_cell(method: Mapping[Hashable, Any]) -> str:
    return f"{method['balanced_accuracy']:.3f} {_spread(method, 'balanced_accuracy_', 3)} {method['accuracy']:.2f}"


def _spread(method: Mapping[Hashable, Any], prefix: str, digits: int) -> str:
    """The interval of a score and its spreads; "-" between the runs of what has one or none.

    Where a seed has several dictionaries, the spread between these stands in the middle.
    """
    low, high, seed_sd, galaxy_sd = (method[f"{prefix}{name}"] for name in ("low", "high", "seed_sd", "galaxy_sd"))
    interval = NEEDS_RUNS if pd.isna(low) else f"[{low:.{digits}f}, {high:.{digits}f}]"
    between = f"{seed_sd:.{digits}f}" if seed_sd > 0 else "-"
    dictionary_sd = method.get(f"{prefix}dictionary_sd")
    within = "" if pd.isna(dictionary_sd) else f" {dictionary_sd:.{digits}f},"
    return f"{interval} ({between},{within} {galaxy_sd:.{digits}f})"


def format_on_seen_rows(metrics: pd.DataFrame) -> str:
    """What probes err when they are fitted on rows whose labels the features have learnt, as text; empty without such.

    Parameters
    ----------
    metrics : DataFrame
        `metrics.parquet` of fit-probes.
    """
    rows = metrics[(metrics["metric"] == "rmse") & (metrics["split"] == "test")]
    is_seen = rows["probe"].str.endswith(ON_SEEN)
    by = ["features", "k", "n_features_used", "seed", "probe", "target", "column"]
    seen = rows[is_seen].assign(probe=rows.loc[is_seen, "probe"].str.removesuffix(ON_SEEN))
    both = seen.merge(rows[~is_seen], on=by, suffixes=("_seen", ""))
    lines = ["test RMSE of probes fitted on rows left to probes, and on rows whose labels the features have learnt:"]
    for (features, k, _, column), of_column in both.groupby(
        ["features", "k", "target", "column"], dropna=False, sort=False
    ):
        means = of_column.groupby("probe", sort=False)[["value", "value_seen"]].mean()
        numbers = (f"{probe} {left:.4f}, {learnt:.4f}" for probe, left, learnt in means.itertuples())
        lines.append(f"  {features if pd.isna(k) else f'{features} k={k}'}, {column}: {'; '.join(numbers)}")
    return "\n".join(lines) if len(lines) > 1 else ""


def significance_line(differences: pd.DataFrame) -> str:
    """How many of the paired differences are significant after Holm's correction within their label column."""
    n = int((differences["p_holm"] < SIGNIFICANT).sum())
    return (
        f"{n} of {int(differences['p_holm'].notna().sum())} paired differences between methods are significant "
        f"(5 %, Holm within each label column; those to the mean, nulls and untrained networks do not count)"
        f"{_untested(differences)}; they stand in differences.txt"
    )


def _untested(differences: pd.DataFrame) -> str:
    n = int(differences["p"].isna().sum())
    return f", {n} more need 2 runs of each method to be tested" if n else ""


def format_differences(differences: pd.DataFrame) -> str:
    """The significant of the paired differences as sentences, the largest first, under what was held equal.

    Parameters
    ----------
    differences : DataFrame
        `metrics.differences.COLUMNS` with `target`, `column` and `metric` ("rmse", less is better, or "auc").
    """
    return "\n\n".join(
        _significant_of(rows, f"{metric.upper()} of {column} (target {target})", is_less_better=metric == "rmse")
        for (target, column, metric), rows in differences.groupby(["target", "column", "metric"], sort=False)
    )


def _significant_of(rows: pd.DataFrame, title: str, *, is_less_better: bool) -> str:
    significant, n_tested = rows[rows["p_holm"] < SIGNIFICANT], int(rows["p_holm"].notna().sum())
    lines = [
        f"{title}: {len(significant)} of {n_tested} differences are significant (5 %, Holm over the {n_tested})"
        f"{_untested(rows)}; intervals are over test galaxies and runs"
    ]
    sizes = significant.assign(size=significant["difference"].abs(), budget=significant["budget"].fillna(0))
    for budget, of_budget in sizes.groupby("budget"):
        lines.append(f"  {budget} features in all:" if budget else "  all features, equal k:")
        for row in of_budget.sort_values("size", ascending=False).to_dict("records"):
            a, b = (_method_name(row, side) for side in "ab")
            better, worse = (a, b) if (row["difference"] < 0) == is_less_better else (b, a)
            low, high = sorted((abs(row["low"]), abs(row["high"])))
            lines.append(
                f"    {better} is better than {worse} by {row['size']:.4f} [{low:.4f}, {high:.4f}], "
                f"p {'≤' if row['is_bound'] else '='} {row['p_holm']:.2g}, "
                f"{f'{n_runs} runs' if (n_runs := row['n_seeds']) > 1 else 'nothing random'}"
            )
    return "\n".join(lines)


def _method_name(row: Mapping[Hashable, Any], side: str) -> str:
    k = row[f"k_{side}"]
    return f"{row[f'features_{side}']}{'' if pd.isna(k) else f' k={k}'} ({row[f'probe_{side}']})"


# --- LaTeX ------------------------------------------------------------------------------------------------------------


def latex_comparison(table: pd.DataFrame, choices: pd.DataFrame) -> str:
    """`comparison_table` in the form of the SFNet paper: a row a k, a column a method, tables for booktabs.

    For each label column a table at k features active for each galaxy (SFNets with their own head, SAEs with ridge on
    all latents) and one at k features in all (linear probe on the best k, of the SFNets and SAEs that are best so on
    valid galaxies: `choices` are `metrics.selection.k_at_budgets`). In both, PCA and PLS with k components; below, the
    controls with ridge on all their features. Brackets are the 95 % interval over galaxies and runs; what has one run
    has none.
    """
    parts = []
    for (target, column), rows in table.groupby(["target", "column"], sort=False):
        rows = rows.assign(most=rows.groupby(["features", "k"], dropna=False)["n_features_used"].transform("max"))
        for what, cells in (
            ("active for each galaxy", _cells_per_galaxy(rows)),
            ("used in all", _cells_in_all(rows, choices)),
        ):
            if not cells.empty:
                caption = (
                    f"Test RMSE of {column} (target {target}) against the number $k$ of features {what}. Brackets are "
                    f"95 % intervals over galaxies and runs; a method of which there is one run has none. Subscripts "
                    f"are effective features: near copies ($|r| > {MERGED}$) count once."
                )
                parts.append(_latex_table(caption, cells, _control_lines(rows)))
    return "% \\usepackage{booktabs}\n" + "\n".join(parts)


def _cells_per_galaxy(rows: pd.DataFrame) -> pd.DataFrame:
    on_all = (rows["n_features_used"] == rows["most"]) & rows["k"].notna()
    has_head = rows["kind"].isin(kinds_of("network"))
    networks = rows[on_all & (rows["probe"] == HEAD) & has_head]
    latents = rows[on_all & (rows["probe"] == "ridge") & ~has_head]
    return pd.concat([_components(rows), latents, networks]).assign(at=lambda t: t["k"].astype(int))


def _cells_in_all(rows: pd.DataFrame, choices: pd.DataFrame) -> pd.DataFrame:
    chosen = rows[rows["k"].notna() & (rows["probe"] == "linear") & (rows["n_features_used"] < rows["most"])]
    standing = chosen[are_chosen(chosen.assign(budget=chosen["n_features_used"]), choices)]
    return pd.concat([_components(rows), standing]).assign(at=lambda t: t["n_features_used"])


def _components(rows: pd.DataFrame) -> pd.DataFrame:
    linear = rows[_are_ordered(rows) & (rows["probe"] == "linear")]
    return linear.assign(k=linear["n_features_used"].astype("Int64"))


def _control_lines(rows: pd.DataFrame) -> list[str]:
    """A line for each method without a number k, neither of active features nor of components."""
    has_no_k = rows["k"].isna() & ~_are_ordered(rows)
    on_all = (rows["n_features_used"] == rows["most"]) & (rows["probe"] == "ridge")
    return [f"{_escaped(row['features'])}: {_latex_cell(row)}" for row in rows[on_all & has_no_k].to_dict("records")]


def _are_ordered(rows: pd.DataFrame) -> "pd.Series[bool]":
    return rows["kind"].isin([kind for kind, traits in TRAITS.items() if traits.is_ordered])


def _latex_table(caption: str, cells: pd.DataFrame, controls: list[str]) -> str:
    names = list(dict.fromkeys(cells["features"]))
    values = {(row["at"], row["features"]): _latex_cell(row) for row in cells.to_dict("records")}
    lines = [
        "\\begin{table}", "\\centering", f"\\caption{{{_escaped(caption)}}}",
        f"\\begin{{tabular}}{{r{'c' * len(names)}}}", "\\toprule",
        " & ".join(["$k$", *map(_escaped, names)]) + " \\\\", "\\midrule",
    ]  # fmt: skip
    for k in sorted(set(cells["at"])):
        lines.append(" & ".join([str(k), *(values.get((k, name), "") for name in names)]) + " \\\\")
    if controls:
        lines.append("\\midrule")
        lines += [f"\\multicolumn{{{len(names) + 1}}}{{l}}{{{line}}} \\\\" for line in controls]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}\n"])


def _latex_cell(method: Mapping[Hashable, Any]) -> str:
    value = f"{method['rmse']:.4f}" + ("" if pd.isna(n := method["n_effective"]) else f"$_{{{n:g}}}$")
    return value if pd.isna(method["low"]) else f"{value} [{method['low']:.4f}, {method['high']:.4f}]"


def _escaped(text: str) -> str:
    """Text for LaTeX; what stands between dollars is left as it is."""
    parts = text.split("$")
    for i in range(0, len(parts), 2):
        parts[i] = "".join(_LATEX.get(character, character) for character in parts[i])
    return "$".join(parts)


_LATEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%#_{}"
}
