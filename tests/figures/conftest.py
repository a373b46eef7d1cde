"""A metrics table of every method, with numbers that say where they come from."""

import numpy as np
import pandas as pd
import pytest

KS = (2, 4, 8)


@pytest.fixture(scope="session")
def metrics() -> pd.DataFrame:
    """SFNet, two SAEs, PCA and all controls; three targets, two seeds, decoys in other splits and metrics."""
    rows: list[dict[str, object]] = []

    def add(features: str, kind: str, k: float, seed: int, probe: str, n_features_used: int, value: float) -> None:
        for target, factor in (("metallicity", 1.0), ("mass", 2.0), ("lines", 3.0)):
            for split, metric, times in (("test", "rmse", 1), ("valid", "rmse", 7), ("test", "nmad", 9)):
                y = (value + 0.001 * seed) * factor * times
                rows.append(
                    {
                        "experiment": "demo", "features": features, "kind": kind, "k": k, "seed": seed, "probe": probe,
                        "n_features_used": n_features_used, "target": target, "column": f"{target}_1", "split": split,
                        "metric": metric, "value": y, "low": y - 0.01, "high": y + 0.02, "n": 100,
                    }
                )  # fmt: skip

    for seed in (0, 1):
        for k in KS:
            add("sfnet", "sfnet", k, seed, "head", 512, 0.10 + 0.1 / k)
            add("sfnet", "sfnet", k, seed, "linear", 11, 0.11 + 0.1 / k)
            for name, worse in (("sae", 0.02), ("matryoshka", 0.03)):
                add(name, "sae", k, seed, "ridge", 2048, 0.12 + worse + 0.1 / k)
                add(name, "sae", k, seed, "linear", 2048, 0.5)
                for budget in KS:
                    add(name, "sae", k, seed, "linear", budget, 0.15 + worse + 0.1 / budget + 0.01 * (k != budget))
            for budget in KS:
                add("sfnet", "sfnet", k, seed, "linear", budget, 0.13 + 0.1 / budget + 0.01 * (k != budget))
            add("pca", "pca", np.nan, seed, "linear", k, 0.18 + 0.1 / k)
        add("mean", "mean", np.nan, seed, "linear", 0, 0.30)
        for probe, value in (("linear", 0.24), ("xgboost", 0.21), ("ridge", 0.23)):
            add("photometry", "photometry", np.nan, seed, probe, 11, value)
        for name, value in (("dense", 0.09), ("random", 0.25)):
            add(name, "encoder", np.nan, seed, "ridge", 512, value)
            add(name, "encoder", np.nan, seed, "ridge", 8, 0.29)
    return pd.DataFrame(rows)
