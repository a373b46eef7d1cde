"""How seconds and memory of the stages grow with the survey: embeddings, PCA and a sparse autoencoder of 2,048 latents.

Every stage runs in a process of its own, as users run it. What a stage takes is held against what the same stage takes
for the smaller survey of the same run, times the ratio of their sizes; PCA against scikit-learn's too.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sfnetlab import runtime
from sfnetlab.bench.compare import Row
from sfnetlab.errors import SfnetlabError
from sfnetlab.files import create_array

WIDTH, N_FACTORS, N_COMPONENTS = 384, 64, 64
SMALL, LARGE, MILLION = (3_000, 30_000), (10_000, 100_000), (100_000, 1_000_000)
"""Numbers of galaxies of the two surveys of `scale`, `scale-large` and `scale-million`."""
STAGES = (
    "prepare-survey",
    "import-embeddings",
    "fit-baselines",
    "train-sae",
    "encode-embeddings",
    "fit-probes",
    "interpret-features",
    "compare-features",
    "hold-claims",
    "make-figures",
    "build-atlas",
    "status",
)
_BLOCK_ROWS = 8192
_SAMPLING_S = 0.02
_CONFIG = f"""
name = "scale"
seeds = [0]
survey = {{kind = "embeddings", catalog = "FOLDER/catalog.parquet"}}
targets.factors.columns = ["label0", "label1"]
classes.kind.column = "kind"
interpretation.morphology = ["*_fraction"]
probes.kinds = ["linear", "ridge"]
features = [
    {{name = "embedding", kind = "external", path = "FOLDER/embeddings.npy", ids = "FOLDER/ids.npy"}},
    {{name = "pca", kind = "pca", on = "embedding", n_components = {N_COMPONENTS}}},
    {{name = "sae", kind = "sae", on = "embedding", n_latents = 2048, k = [32], epochs = 2}},
]
"""


class Cost(NamedTuple):
    """What a stage took."""

    seconds: float
    """Its results, without the start of the process; of `status`, which has none, the whole process."""
    cpu_s: float
    """Seconds of all cores, of the same: what beside other work says more than the seconds that passed."""
    peak_mb: float
    """Largest memory of its own: pages of files that are mapped, which the system drops when it needs them, do not
    count."""


def scale(device: str) -> Iterator[Row]:
    """Yield a row for each stage at 3,000 and 30,000 galaxies."""
    yield from rows_of(SMALL, device)


def scale_large(device: str) -> Iterator[Row]:
    """Yield a row for each stage at 10,000 and 100,000 galaxies."""
    yield from rows_of(LARGE, device)


def scale_million(device: str) -> Iterator[Row]:
    """Yield a row for each stage at 100,000 and 1,000,000 galaxies: 3 GB of disk."""
    yield from rows_of(MILLION, device)


def rows_of(sizes: tuple[int, int], device: str, stages: Sequence[str] = STAGES) -> Iterator[Row]:
    """Yield a row for each stage: seconds and peak for the larger survey, against the smaller one's times the ratio.

    Raises
    ------
    SfnetlabError
        If a stage fails.
    """
    with tempfile.TemporaryDirectory(prefix="sfnetlab-scale-") as place:
        folders = [Path(place) / str(n) for n in sizes]
        for n, folder in zip(sizes, folders, strict=True):
            make_survey(folder, n)
        for stage in stages:
            small, large = (_run(stage, folder, device) for folder in folders)
            yield _row(stage, sizes, small, large, device)
            if stage == "fit-baselines":
                yield _against_scikit_learn(folders[0], sizes[0], small, device)


def make_survey(folder: Path, n: int) -> None:
    """Write embeddings (n, `WIDTH`) of sparse factors, a catalogue that knows some of these, and a configuration."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((N_FACTORS, WIDTH), dtype=np.float32)
    values = create_array(folder / "embeddings.npy", (n, WIDTH), "float32")
    labels = np.empty((n, 3))
    for start in range(0, n, _BLOCK_ROWS):
        rows = slice(start, min(start + _BLOCK_ROWS, n))
        shape = (rows.stop - start, N_FACTORS)
        factors = np.where(rng.random(shape) < 0.15, rng.exponential(size=shape), 0.0).astype(np.float32)
        values[rows] = factors @ atoms + rng.standard_normal((shape[0], WIDTH), dtype=np.float32)
        labels[rows] = factors[:, :3] + 0.3 * rng.standard_normal((shape[0], 3))
    ids = np.array([f"g{i}" for i in range(n)])
    np.save(folder / "ids.npy", ids)
    catalog = pd.DataFrame({"id_str": ids, "label0": labels[:, 0], "label1": labels[:, 1]})
    for i in range(8):  # answers of volunteers, each to another part of the galaxies
        asked = rng.random(n) > 0.1 * i
        catalog[f"smooth{i}_fraction"] = np.where(asked, 1 / (1 + np.exp(-labels[:, i % 3])), np.nan)
    catalog["kind"] = np.digitize(labels[:, 2], [0, 0.5])
    catalog.to_parquet(folder / "catalog.parquet", index=False)
    (folder / "config.toml").write_text(_CONFIG.replace("FOLDER", str(folder)))


def _run(stage: str, folder: Path, device: str) -> Cost:
    flags = [] if stage == "status" else ["--device", device]
    command = [sys.executable, "-m", "sfnetlab", stage, "config.toml", "--out", "results", "-q", *flags]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    with (folder / "log.txt").open("w+") as log:
        started, peak = time.perf_counter(), 0.0
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        before = os.times()
        while process.poll() is None:
            peak = max(peak, _own_memory_mb(process.pid))
            time.sleep(_SAMPLING_S)
        seconds, after = time.perf_counter() - started, os.times()
        log.seek(0)
        if process.returncode != 0:
            raise SfnetlabError(f"bench scale: {stage} failed: {log.read()[-2000:]}")
    manifests = (folder / "results" / stage).glob("*/manifest.json")
    results = [json.loads(path.read_text()) for path in manifests]
    if results:
        return Cost(sum(each["wall_s"] for each in results), sum(each["cpu_s"] for each in results), peak)
    cpu_s = after.children_user - before.children_user + after.children_system - before.children_system
    return Cost(seconds, cpu_s, peak)


def _own_memory_mb(pid: int) -> float:
    """Anonymous resident memory of a process; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon")), 0.0)


def _row(stage: str, sizes: tuple[int, int], small: Cost, large: Cost, device: str) -> Row:
    ratio_of_sizes = sizes[1] / sizes[0]
    exponent = math.log(large.cpu_s / small.cpu_s) / math.log(ratio_of_sizes) if small.cpu_s > 0 else math.nan
    expected = small.seconds * ratio_of_sizes
    against = f"{sizes[1]:,} galaxies, against {sizes[0]:,} times {ratio_of_sizes:g}"
    return Row(
        name="scale",
        case=f"{stage}, {against}: exponent {exponent:.2f} in CPU s",
        ours=large.seconds,
        reference=expected,
        unit="s",
        ratio=large.seconds / expected if expected > 0 else None,
        threads=runtime.n_threads(),
        device=device,
        peak_mb=large.peak_mb,
        reference_peak_mb=small.peak_mb,
        cpu_s=large.cpu_s,
        reference_cpu_s=small.cpu_s,
    )


def _against_scikit_learn(folder: Path, n: int, ours: Cost, device: str) -> Row:
    """The stage, which also writes features and errors, against scikit-learn's fit and transform of all rows."""
    from sklearn.decomposition import PCA

    values = np.load(folder / "embeddings.npy")
    started = time.perf_counter()
    PCA(N_COMPONENTS, svd_solver="full").fit(values).transform(values)
    seconds = time.perf_counter() - started
    return Row(
        name="scale",
        case=f"fit-baselines, {n:,} galaxies, against scikit-learn's PCA of them in float32",
        ours=ours.seconds,
        reference=seconds,
        unit="s",
        ratio=ours.seconds / seconds,
        threads=runtime.n_threads(),
        device=device,
    )
