"""A metrics table of every method, with numbers that say where they come from; and runs made up of a few tables."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sfnetlab.figures.findings import Draw
from sfnetlab.jobs import TableSpec
from sfnetlab.results import Record, Results

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
                        "n_features_used": n_features_used, "n_effective": n_features_used, "target": target,
                        "column": f"{target}_1", "split": split,
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


class MadeUp:
    """A finished run with the few tables that a test is about; `results` opens it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records: list[Record] = []

    def add(self, stage: str, name: str, settings: dict, inputs: dict | None = None, **contents) -> None:
        """A result whose contents are tables, arrays, or a list of the steps of a training."""
        path = self.root / stage / name
        path.mkdir(parents=True)
        for file, content in contents.items():
            if isinstance(content, np.ndarray):
                np.save(path / f"{file}.npy", content)
            elif isinstance(content, pd.DataFrame):
                content.to_parquet(path / f"{file}.parquet", index=False)
            else:
                (path / f"{file}.jsonl").write_text("\n".join(json.dumps(step) for step in content))
        inputs = {role: f"{stage}/{name}" for role, (stage, name) in (inputs or {}).items()}
        record = Record(stage=stage, name=name, key=f"{stage}/{name}", settings=settings, inputs=inputs, path=path)
        self.records.append(record)

    def survey(self, n: int, images: bool = True, **columns) -> list[str]:
        """Ids of galaxies; every third one is of the test part, and of cutout i all pixels are i."""
        ids = [f"g{i:03d}" for i in range(n)]
        split = np.resize(["train", "valid", "test"], n)
        contents = {"catalog": pd.DataFrame({"id_str": ids, "split": split, **columns})}
        if images:
            contents["images"] = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 8, 8, 3)).copy()
        self.add("prepare-survey", "survey", {}, **contents)
        (self.root / "prepare-survey/survey/metrics.json").write_text('{"pixel_scale_arcsec": 0.4}')
        return ids

    def table(
        self, spec: TableSpec, made=None, probed=None, described=None, head_target=None, values=None, **settings
    ) -> None:
        """A feature table, what was written when it was made, and what its probes and interpretation found."""
        if values is not None:
            catalog = pd.read_parquet(self.root / "prepare-survey/survey/catalog.parquet")
            made = {"rows": catalog[["id_str", "split"]], "features": values.astype(np.float32), **(made or {})}
        self.add("embed-images", spec.name, {}, **(made or {}))
        about = {"table": asdict(spec), "head_target": head_target}
        inputs = {"features": ("embed-images", spec.name)}
        self.add("fit-probes", spec.name, about | {"probes": {"budgets": [2, 4]}}, inputs, **(probed or {}))
        if described is not None:
            fixed = {"interpretation": {"held_fixed": ["lgm_tot_p50", "a - b"]}}
            self.add("interpret-features", spec.name, about | fixed, inputs, **described)

    def comparison(self, targets=None, two_classes=(), many_classes=(), **tables) -> None:
        targets = targets or {"metallicity": ["oh_p50"]}
        settings = {
            "experiment": "made_up",
            "targets": {name: {"columns": own, "cut": None, "quantiles": []} for name, own in targets.items()},
            "classes": {name: {"positive": [1]} for name in two_classes}
            | {name: {"positive": []} for name in many_classes},
        }
        self.add("fit-probes", "comparison", settings, **tables)

    def results(self) -> Results:
        return Results(sorted(self.records, key=lambda record: record.name != "comparison"), "made_up")

    def drawn(self, draw: Draw) -> dict[str, Figure | bytes]:
        """What a figure's `draw` makes of it; animations have the ending .gif."""
        return {f"{name}.gif" if isinstance(made, bytes) else name: made for name, made in draw(self.results())}


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path)
