"""A plan on workers: processes here, a scheduler elsewhere, a queue; and what a user is told where that cannot be."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dask
import pytest
from distributed import Client

import sfnetlab
from sfnetlab import cli, cluster, runner
from sfnetlab.artifacts import builder_of
from sfnetlab.config import load
from sfnetlab.errors import ConfigError, DataError
from sfnetlab.plan import make_plan, memory_bytes
from small_run import STAGES, options, payloads, write_experiment


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("survey"))


@pytest.fixture(scope="module")
def alone(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one process without workers."""
    root, _ = runner.run(options(config, tmp_path_factory.mktemp("alone")), STAGES)
    return root


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and a worker, in processes of their own, as a user starts them."""
    folder = tmp_path_factory.mktemp("dask")
    found = folder / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli"]
    at = ["--scheduler-file", str(found), "--no-dashboard"]
    with (folder / "log.txt").open("w") as log:
        scheduler, worker = (
            subprocess.Popen([*command[:2], f"{command[2]}.{name}", *at, *more], stderr=log, stdout=log, cwd=folder)
            for name, more in (
                ("dask_scheduler", ["--port", "0"]),
                ("dask_worker", ["--nthreads", "1", "--no-nanny", "--memory-limit", "4GiB"]),
            )
        )
    while not found.exists():
        assert scheduler.poll() is None, (folder / "log.txt").read_text()
        time.sleep(0.05)
    yield str(json.loads(found.read_text())["address"])
    for process in (worker, scheduler):
        process.terminate()
        process.wait()


def test_a_scheduler_that_is_there_is_reached_by_its_address_and_makes_the_same_bits(config, alone, address, tmp_path):
    root, _ = runner.run(options(config, tmp_path / "out", cluster=address), STAGES)
    assert payloads(root) == payloads(alone)
    assert not list(root.glob(".token-*"))
    assert "fit-probes/comparison" in "".join(path.read_text() for path in (root / "logs").iterdir())


def test_what_does_not_need_a_job_that_failed_is_made_and_the_error_is_one_message(config, address, tmp_path, caplog):
    broken = tmp_path / "broken.toml"
    (tmp_path / "bad.parquet").write_text("no table")
    bad = f'[[features]]\nname = "bad"\nkind = "external"\npath = "{tmp_path}/bad.parquet"\ncolumns = ["e"]\n[probes]'
    broken.write_text(config.read_text().replace("[probes]", bad))
    with pytest.raises(DataError, match=r"^import-embeddings/bad on \S+: .*; 2 jobs that need it were not made$"):
        runner.run(options(broken, tmp_path / "out", cluster=address), STAGES)
    assert (tmp_path / "out/fit-probes/sae-k2-seed1/manifest.json").exists()
    assert caplog.text.count("what does not need it goes on") == 1


def test_a_full_disk_of_one_worker_is_one_message_and_the_run_goes_on_when_there_is_space(
    config, alone, address, tmp_path, capsys
):
    job = next(job for job in make_plan(load(config, ())) if str(job) == "encode-embeddings/sae-k2-seed0")
    work = tmp_path / job.stage / f".{job.name}.{job.key[:12]}"
    work.mkdir(parents=True)
    (work / "features.npz").symlink_to("/dev/full")
    chosen = options(config, tmp_path, cluster=address)
    assert runner.exit_status(lambda: runner.run(chosen, STAGES)) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sfnetlab: ")]
    assert said == [
        f"sfnetlab: {job} on {socket.gethostname()}: {job.directory(tmp_path)}: no space is left on the disk; free "
        f"some and run again, finished parts are kept; 2 jobs that need it were not made"
    ]
    assert not job.directory(tmp_path).exists()
    assert (tmp_path / "fit-probes/sae-k2-seed1/manifest.json").exists()
    (work / "features.npz").unlink()
    runner.run(chosen, STAGES)
    assert payloads(tmp_path) == payloads(alone)


def test_what_a_survey_lacks_is_told_by_the_worker_that_prepares_it_before_any_training(config, address, tmp_path):
    small = tmp_path / "small.toml"
    small.write_text(config.read_text().replace("fractions = [0.6, 0.2, 0.2]", "fractions = [0.9, 0.05, 0.05]"))
    lacks = r"^prepare-survey/survey on \S+: .*the survey lacks what the experiment asks for(.|\n)*target 'mass'"
    with pytest.raises(DataError, match=lacks):
        runner.run(options(small, tmp_path / "out", cluster=address), STAGES)
    assert {path.parent.parent.name for path in (tmp_path / "out").glob("*/*/manifest.json")} == {"prepare-survey"}


def test_a_worker_offers_the_memory_that_it_was_given_and_a_job_takes_what_its_stage_needs(
    config, address, tmp_path, monkeypatch
):
    submitted = []
    submit = Client.submit

    def noted(client, *arguments, **named):
        submitted.append(named["resources"])
        return submit(client, *arguments, **named)

    monkeypatch.setattr(Client, "submit", noted)
    runner.run(options(config, tmp_path, cluster=address), ["prepare-survey"])
    assert submitted == [{"SFNETLAB": 1, "MEMORY": memory_bytes("prepare-survey", None)}]
    with Client(address, set_as_default=False) as client:
        (worker,) = client.scheduler_info()["workers"].values()
    assert worker["resources"] == {"SFNETLAB": 1, "MEMORY": 4 * 2**30}


def test_a_job_that_needs_more_memory_than_any_worker_has_is_made_with_a_warning(
    config, address, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(runner, "memory_bytes", lambda *_: 7 * 10**9)
    root, _ = runner.run(options(config, tmp_path, cluster=address), ["prepare-survey"])
    assert (root / "prepare-survey/survey/manifest.json").exists()
    assert (
        "the largest worker has 4.3 GB, and jobs are known to need more: prepare-survey 7.0 GB; take f" in caplog.text
    )


@pytest.mark.parametrize(("offered", "taken"), [([8e9, 2e9], 3e9), ([2e9, 1e9], 2e9), ([3e9], 3e9)])
def test_a_job_is_for_workers_with_memory_for_it_and_if_none_has_it_for_the_largest(config, offered, taken):
    plan = make_plan(load(config, ()))
    run = cluster.Run(Path(), plan, print, frozenset(), memory={plan[0].stage: 3 * 10**9})
    needs = cluster.resources_of(plan[0], run, [{cluster.MEMORY: n} for n in offered])
    assert needs == {cluster.ROOM: 1, cluster.MEMORY: taken}


def test_memory_grows_with_the_galaxies_where_a_stage_holds_something_for_each():
    assert memory_bytes("fit-probes", None) < memory_bytes("fit-probes", 10**5) < memory_bytes("fit-probes", 10**6)
    assert memory_bytes("train-sfnet", None) == memory_bytes("train-sfnet", 10**6)
    assert all(0 < memory_bytes(stage, 10**6) <= 4 * 2**30 for stage in runner.STAGES)


def test_a_worker_that_does_not_see_the_results_is_told_at_the_start(config, address, tmp_path, monkeypatch):
    here = cluster.Place(Path("/nowhere/.token"), Path.cwd(), cluster.versions())
    monkeypatch.setattr(cluster.Place, "here", lambda _: here)
    with pytest.raises(ConfigError, match=r"worker tcp://\S+: it does not see the results folder /nowhere; choose one"):
        runner.run(options(config, tmp_path, cluster=address), STAGES)
    assert not list(tmp_path.glob("prepare-survey"))


def test_a_worker_with_another_version_of_the_package_is_told_at_the_start(config, address, tmp_path, monkeypatch):
    other = cluster.versions() | {"source": "another"}
    monkeypatch.setattr(cluster, "versions", lambda: other)
    with pytest.raises(ConfigError, match=r"it has another version of sfnetlab, .*; install the same for both"):
        runner.run(options(config, tmp_path, cluster=address), STAGES)


@pytest.mark.slow
def test_a_worker_that_is_killed_in_mid_training_is_replaced_and_the_results_are_the_same_bits(config, alone, tmp_path):
    job = next(job for job in make_plan(load(config, ())) if job.stage == "train-sae")
    with dask.config.set({"distributed.worker.preload": [str(Path(__file__).with_name("slow_training.py"))]}):
        run = threading.Thread(target=runner.run, args=(options(config, tmp_path, workers=2), STAGES))
        run.start()
        wait_for_epochs(tmp_path, 3)
        builder = builder_of(tmp_path, job)
        assert builder is not None
        os.kill(builder["pid"], signal.SIGKILL)
        run.join()
    assert payloads(tmp_path) == payloads(alone)
    assert "goes on at step" in "".join(path.read_text() for path in (tmp_path / "logs").iterdir())


INTERRUPTED = """
import signal
import sys
from pathlib import Path
import dask
from sfnetlab import runner
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes what it starts with & ignore it
    dask.config.set({"distributed.worker.preload": [sys.argv[3]]})
    options = runner.Options(Path(sys.argv[1]), Path(sys.argv[2]), (), False, "cpu", workers=2)
    sys.exit(runner.exit_status(lambda: runner.run(options, sys.argv[4:])))
"""


def wait_for_epochs(root: Path, n: int, process: subprocess.Popen[str] | None = None) -> None:
    lines: list[str] = []
    while len(lines) < 2 * n:  # of two models
        assert process is None or process.poll() is None, process.communicate()[1]
        histories = root.glob("train-sae/.sae.*/progress.jsonl")
        lines = [line for path in histories for line in path.read_text().splitlines()]
        time.sleep(0.02)


def is_gone(group: int) -> bool:
    """Whether the processes of a group end within seconds: one of Python's outlives the last of the others."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_an_interrupted_run_leaves_no_process_and_everything_resumable(config, alone, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(INTERRUPTED)
    out, preload = tmp_path / "out", Path(__file__).with_name("slow_training.py")
    command = [sys.executable, str(script), str(config), str(out), str(preload), *STAGES]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for_epochs(out, 3, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it, to the workers too
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "sfnetlab: interrupted; the same command goes on where it was"
    assert "Traceback" not in said
    assert is_gone(process.pid)
    assert not list(out.glob(".token-*"))
    runner.run(options(config, out), STAGES)
    assert payloads(out) == payloads(alone)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_workers_that_is_none_is_one_message(config, tmp_path, capsys, number):
    assert cli.main(["run", str(config), "--out", str(tmp_path), f"--workers={number}"]) == 2
    assert capsys.readouterr().err == f"sfnetlab: --workers: expected a number of processes from 1, found {number!r}\n"


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1:1", "nonsense://host"])
def test_a_scheduler_that_cannot_be_reached_is_one_message(config, tmp_path, capsys, monkeypatch, address):
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.3)
    assert cli.main(["run", str(config), "--out", str(tmp_path), "--cluster", address, "-q"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"sfnetlab: --cluster {address}: no Dask scheduler answers there (")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["nothing", "http"])
def test_what_answers_and_is_no_scheduler_is_one_message(config, tmp_path, capsys, monkeypatch, says):
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.3)
    connections = []  # kept open

    def answer() -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                connections.append(listener.accept()[0])
                connections[-1].sendall(says)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=answer, daemon=True).start()
        assert cli.main(["run", str(config), "--out", str(tmp_path), "--cluster", address, "-q"]) == 2
    assert f"--cluster {address}: no Dask scheduler answers there (" in capsys.readouterr().err
    for connection in connections:
        connection.close()


def test_the_missing_extra_is_one_message(config, tmp_path, capsys, monkeypatch):
    monkeypatch.delattr(sfnetlab, "cluster")
    monkeypatch.delitem(sys.modules, "sfnetlab.cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert cli.main(["run", str(config), "--out", str(tmp_path), "--workers", "2", "-q"]) == 2
    assert capsys.readouterr().err == "sfnetlab: --workers and --cluster need Dask: uv sync --extra cluster\n"


def test_who_forces_does_not_skip(config, tmp_path, capsys):
    assert cli.main(["run", str(config), "--out", str(tmp_path), "--force", "--skip-busy", "-q"]) == 2
    assert "each process would build all again" in capsys.readouterr().err


# --- queues -----------------------------------------------------------------------------------------------------------

QUEUE = """
kind = "KIND"
workers = 3
[options]
cores = 8
memory = "32GB"
queue = "gpu"
walltime = "12:00:00"
job_extra_directives = ["--gres=gpu:1"]
job_script_prologue = ["module load cuda"]
"""


@pytest.fixture
def no_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of queues are there; nobody calls them."""
    for name in ("sbatch", "qsub"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("slurm", ["#SBATCH -p gpu", "#SBATCH --cpus-per-task=8", "#SBATCH --mem=30G", "#SBATCH -t 12:00:00"]),
        ("pbs", ["#PBS -q gpu", "#PBS -l select=1:ncpus=8:mem=30GB", "#PBS -l walltime=12:00:00"]),
        ("sge", ["#$ -q gpu", "#$ -l h_rt=12:00:00"]),
    ],
)
def test_a_queue_gets_jobs_of_one_worker_with_all_its_cores(tmp_path, no_queue, kind, says):
    path = tmp_path / f"{kind}.toml"
    path.write_text(QUEUE.replace("KIND", kind))
    queued, n_workers = cluster.open_queue(path, tmp_path)
    try:
        script = queued.job_script().splitlines()
    finally:
        queued.close()
    assert n_workers == 3
    assert not [line for line in says if line not in script]
    (command,) = [line for line in script if "dask_worker" in line]
    assert command.startswith(sys.executable)
    assert "--nthreads 8" in command
    assert "--nworkers" not in command
    before = script[: script.index(command)]
    assert "export DASK_DISTRIBUTED__WORKER__DAEMON=False" in before
    assert "module load cuda" in before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('kind = "KIND"', 'kind = "cobalt"'), "kind: expected one of slurm, pbs, sge, found 'cobalt'"),
        (("workers = 3", "workers = 0"), "workers: expected a number from 1, found 0"),
        (("workers = 3", 'workers = "3"'), "workers: expected a number from 1, found '3'"),
        (("cores = 8", ""), r"expected a table \[options\] with cores and memory"),
        (("cores = 8", "cores = 8\ncolour = 1"), "options: SLURMCluster of dask-jobqueue says: .*colour"),
        (("workers = 3", "workers = 3\njobs = 1"), "unknown key jobs"),
        (("workers = 3", "workers = ="), "not a readable TOML file"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Dask's half-made cluster
def test_a_wrong_file_of_a_queue_is_one_message(tmp_path, no_queue, change, says):
    path = tmp_path / "queue.toml"
    path.write_text(QUEUE.replace(*change).replace("KIND", "slurm"))
    with pytest.raises(ConfigError, match=says):
        cluster.open_queue(path, tmp_path)


def test_a_machine_without_the_queue_is_one_message(tmp_path, monkeypatch):
    path = tmp_path / "queue.toml"
    path.write_text(QUEUE.replace("KIND", "slurm"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="this machine has no sbatch to submit jobs with"):
        cluster.open_queue(path, tmp_path)


def test_a_file_of_a_queue_that_is_missing_is_one_message(tmp_path):
    with pytest.raises(ConfigError, match=r"gone.toml: not a readable TOML file: .*No such file"):
        cluster.open_queue(tmp_path / "gone.toml", tmp_path)
