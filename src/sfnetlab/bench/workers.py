"""What workers gain and cost: an experiment in turn and on two workers, and many jobs that do nothing."""

import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sfnetlab import cluster, config, runtime, status
from sfnetlab.artifacts import build, find_manifest
from sfnetlab.bench.compare import Row
from sfnetlab.jobs import WHOLE, Job, Shard
from sfnetlab.plan import make_plan

N_WORKERS = 2
N_TRIVIAL = 1000
EXPERIMENT = """
name = "workers"
seeds = [0, 1]
[survey]
kind = "mock"
n_galaxies = 800
image_size = 32
[targets.metallicity]
columns = ["oh_p50"]
[training]
epochs = 3
[[features]]
name = "sfnet"
kind = "sfnet"
target = "metallicity"
k = [2, 4]
[[features]]
name = "dense"
kind = "encoder"
weights = "target"
target = "metallicity"
[[features]]
kind = "photometry"
[[features]]
kind = "mean"
[probes]
kinds = ["linear"]
budgets = [4]
n_bootstrap = 100
[interpretation]
n_permutations = 20
"""


def workers(device: str) -> Iterator[Row]:
    """Yield rows for a small experiment in turn and on workers, for what a simulation expects, and for trivial jobs."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _experiment(Path(folder), device)
        yield _trivial(Path(folder), device)


def _experiment(folder: Path, device: str) -> Iterator[Row]:
    path = folder / "workers.toml"
    path.write_text(EXPERIMENT)
    plan = make_plan(config.load(path))
    about = {"threads": runtime.n_threads(), "device": device}
    seconds = {}
    for name, flags in (("alone", ()), ("workers", ("--workers", str(N_WORKERS)))):
        command = [sys.executable, "-m", "sfnetlab", "run", str(path), "--out", str(folder / name), "--device", device]
        started = time.perf_counter()
        subprocess.run([*command, *flags, "-q"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds[name] = time.perf_counter() - started
    ours, reference = (60 * len(plan) / seconds[name] for name in ("workers", "alone"))
    case = f"{len(plan)} jobs of a small experiment, {N_WORKERS} workers against one process"
    yield Row(
        name="workers", case=case, unit="jobs/min", ours=ours, reference=reference, ratio=ours / reference, **about
    )
    manifests = {job: find_manifest(job.directory(folder / "workers")) for job in plan}
    measured = {job: float(manifest["wall_s"]) for job, manifest in manifests.items() if manifest is not None}
    expected = status.makespan(measured, N_WORKERS)
    case = f"the same: seconds on {N_WORKERS} workers, against a simulation from its jobs' times"
    ratio = seconds["workers"] / expected
    yield Row(name="workers", case=case, unit="s", ours=seconds["workers"], reference=expected, ratio=ratio, **about)


def _trivial(folder: Path, device: str) -> Row:
    """Return milliseconds for each job that does nothing, on workers and in this process."""
    jobs = [Job(stage="trivial", version=1, name=str(number), spec=None, inputs={}) for number in range(N_TRIVIAL)]

    def on_workers(root: Path, n: int) -> float:
        run = cluster.Run(root, jobs[:n], functools.partial(_build_nothing, root), frozenset())
        started = time.perf_counter()
        cluster.compute(run, jobs[:n], N_WORKERS, None)
        return time.perf_counter() - started

    started = time.perf_counter()
    for job in jobs:
        _build_nothing(folder / "in turn", job)
    alone = time.perf_counter() - started
    start = on_workers(folder / "one", 1)
    ours, reference = (1000 * t / N_TRIVIAL for t in (on_workers(folder / "many", N_TRIVIAL) - start, alone))
    return Row(
        name="workers",
        case=f"{N_TRIVIAL:,} jobs that do nothing, {N_WORKERS} workers against one process, without their start",
        unit="ms/job",
        ours=ours,
        reference=reference,
        ratio=ours / reference,
        threads=runtime.n_threads(),
        device=device,
    )


def _build_nothing(root: Path, job: Job, _: Shard = WHOLE) -> None:
    build(root, job, lambda _: {}, config_toml="", device="cpu")
