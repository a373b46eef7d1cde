"""A survey of embeddings whose run takes seconds, and a process of its own that does such a run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from sfnetlab.runner import Options

N, D = 90, 8
STAGES = ("prepare-survey", "import-embeddings", "train-sae", "encode-embeddings", "fit-probes")
"""Those that a small run does, the quick ones."""

TOML = """
name = "NAME"
seeds = [0, 1]
[survey]
kind = "embeddings"
catalog = "FOLDER/catalog.csv"
[split]
kind = "hash"
fractions = [0.6, 0.2, 0.2]
[targets.mass]
columns = ["lgm_tot_p50"]
[[features]]
name = "mae"
kind = "external"
path = "FOLDER/table.parquet"
columns = ["e"]
[[features]]
name = "sae"
kind = "sae"
on = "mae"
n_latents = 16
k = [2]
epochs = 12
[probes]
kinds = ["linear"]
classifiers = ["majority"]
budgets = []
n_bootstrap = 100
"""

# Checkpoints after every step and slow epochs: whoever kills this process finds it in the middle of a training.
_SLOW_RUN = """
import sys, time
from pathlib import Path
from sfnetlab import runner
from sfnetlab.jobs import Task
from sfnetlab.training import loop
loop.CHECKPOINT_INTERVAL_S = 0.0
report = Task.report
Task.report = lambda task, history: (report(task, history), time.sleep(float(sys.argv[3])))
options = runner.Options(Path(sys.argv[1]), Path(sys.argv[2]), (), False, "cpu", skip_busy=True)
sys.exit(runner.exit_status(lambda: runner.run(options, sys.argv[4:])))
"""


def write_experiment(folder: Path, name: str = "small") -> Path:
    """Write catalogue, embeddings and configuration into a folder; return the path of the configuration."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((N, D)).astype(np.float32)
    ids = [f"g{row:03d}" for row in range(N)]
    pd.DataFrame({"id_str": ids, "lgm_tot_p50": 10 + values[:, 0]}).to_csv(folder / "catalog.csv", index=False)
    pd.DataFrame({"id_str": ids, "e": list(values)}).to_parquet(folder / "table.parquet")
    config = folder / f"{name}.toml"
    config.write_text(TOML.replace("NAME", name).replace("FOLDER", str(folder)))
    return config


def options(config: Path, out: Path | None, **more: object) -> Options:
    """Return the flags of a run on the CPU."""
    return Options(config=config, out=out, overrides=(), force=False, device="cpu", **more)  # type: ignore[arg-type]


def start_slow_run(config: Path, out: Path, seconds_an_epoch: float) -> subprocess.Popen[str]:
    """Start a process that does the run with `--skip-busy`, slowly."""
    command = [sys.executable, "-c", _SLOW_RUN, str(config), str(out), str(seconds_an_epoch), *STAGES]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def payloads(out: Path) -> dict[str, bytes]:
    """Return the bytes of every file that a run made, but for what tells when and how it was made."""
    told = {"manifest.json", "config.toml", "progress.jsonl"}
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.glob("*/[!.]*/**/*"))
        if path.is_file() and path.name not in told
    }
