"""The comparison as a table to read: one row a method, one column a probe, test scores with their intervals."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

KIND_ORDER = ["noise_floor", "mean", "photometry", "encoder", "pca", "null_sae", "sae", "sfnet"]
PROBES = ["head", "linear", "ridge", "xgboost"]


def comparison_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """Test RMSE of every method, averaged over seeds.

    Parameters
    ----------
    metrics : DataFrame
        The tidy `metrics.parquet` of fit-probes.

    Returns
    -------
    DataFrame
        `target, column, features, kind, supervised, k, n_features_used, probe, n_seeds, rmse, low, high, seed_sd`.
        `supervised` says that the features themselves were trained on a label; `low` and `high` are the 95 % bootstrap
        bounds over galaxies, averaged over seeds; `seed_sd` is the standard deviation over seeds (NaN for one seed);
        `n_features_used` is the median over seeds.
    """
    chosen = metrics[(metrics["split"] == "test") & (metrics["metric"] == "rmse")].copy()
    # All features in use is one method, whatever their number is for a seed; a budget is another.
    runs = chosen.groupby(["features", "k", "seed", "target", "column"], dropna=False)
    chosen["budget"] = chosen["n_features_used"].where(
        chosen["n_features_used"] < runs["n_features_used"].transform("max")
    )
    by = ["target", "column", "features", "kind", "k", "budget", "probe"]
    grouped = chosen.groupby(by, dropna=False, sort=False)
    table = grouped.agg(
        n_features_used=("n_features_used", "median"),
        n_seeds=("seed", "size"),
        rmse=("value", "mean"),
        low=("low", "mean"),
        high=("high", "mean"),
        seed_sd=("value", "std"),
    ).reset_index()
    table["n_features_used"] = table["n_features_used"].astype(int)
    trained = metrics.loc[metrics["probe"] == "head", "features"].unique()
    table.insert(4, "supervised", table["features"].isin(trained))
    rank = table["kind"].map(KIND_ORDER.index)
    probe_rank = table["probe"].map({probe: place for place, probe in enumerate(PROBES)})
    ordered = table.assign(rank=rank, probe_rank=probe_rank).sort_values(
        ["target", "column", "rank", "features", "k", "n_features_used", "probe_rank"], kind="stable"
    )
    return ordered.drop(columns=["rank", "probe_rank", "budget"]).reset_index(drop=True)


def format_comparison(table: pd.DataFrame) -> str:
    """The comparison as plain text, a block for each label column."""
    blocks = [
        f"test RMSE of {column} (target {target}): mean over seeds [95 % interval over galaxies]\n{_block(rows)}"
        for (target, column), rows in table.groupby(["target", "column"], sort=False)
    ]
    return "\n\n".join(blocks)


def _block(rows: pd.DataFrame) -> str:
    lines = [("features", "L0", "in all", "seeds", *PROBES)]
    floor = rows[rows["kind"] == "noise_floor"]
    for (features, k, used), methods in rows[rows["kind"] != "noise_floor"].groupby(
        ["features", "k", "n_features_used"], sort=False, dropna=False
    ):
        cells = {method["probe"]: _cell(method) for method in methods.to_dict("records")}
        active = "" if pd.isna(k) else str(k)
        name = f"{features} *" if methods["supervised"].any() else features
        lines.append((name, active, str(used), str(methods["n_seeds"].max()), *(cells.get(p, "") for p in PROBES)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    text.append(
        "L0: features active for each galaxy; in all: features used for the whole sample\n"
        "* features learnt with a label; PCA and SAEs never see one, but their encoder may have"
    )
    if len(floor):
        text.append(f"noise floor, the scatter that the generator shows in no image: {floor['rmse'].iloc[0]:.4f}")
    return "\n".join(text)


def _cell(method: Mapping[Hashable, Any]) -> str:
    return f"{method['rmse']:.4f} [{method['low']:.4f}, {method['high']:.4f}]"
