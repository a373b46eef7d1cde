"""Several processes on one results folder: nobody builds what another builds, and who dies is followed."""

import dataclasses
import errno
import json
import logging
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from sfnetlab import cli, runner
from sfnetlab.artifacts import build, builder_of
from sfnetlab.config import load
from sfnetlab.errors import BusyError
from sfnetlab.jobs import Job
from sfnetlab.plan import make_plan
from sfnetlab.status import makespan, statuses
from small_run import STAGES, N, options, payloads, start_slow_run, write_experiment


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("survey"))


@pytest.fixture(scope="module")
def alone(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one process that nobody disturbed."""
    root, _ = runner.run(options(config, tmp_path_factory.mktemp("alone")), STAGES)
    return root


def job_of(config: Path, name: str) -> Job:
    return next(job for job in make_plan(load(config, ())) if str(job) == name)


def hold(root: Path, job: Job) -> tuple[threading.Thread, threading.Event]:
    """Build a job in a thread, as another process would, until the event; it fails then, as one that dies."""
    released, begun = threading.Event(), threading.Event()

    def make(work: Path) -> dict[str, float]:
        begun.set()
        released.wait()
        raise InterruptedError

    def attempt() -> None:
        with pytest.raises(InterruptedError):
            build(root, job, make, config_toml="", device="cpu")

    thread = threading.Thread(target=attempt)
    thread.start()
    begun.wait()
    return thread, released


def test_a_run_that_finds_a_busy_job_says_who_builds_it_and_how_to_share(config, tmp_path):
    thread, released = hold(tmp_path, job_of(config, "prepare-survey/survey"))
    with pytest.raises(BusyError, match=r"process \d+ on .* is building prepare-survey/survey; .*--skip-busy"):
        runner.run(options(config, tmp_path), STAGES)
    released.set()
    thread.join()


def test_who_skips_what_is_busy_does_the_rest_and_takes_over_from_one_that_died(
    config, tmp_path, alone, monkeypatch, caplog
):
    runner.run(options(config, tmp_path), ["prepare-survey", "import-embeddings"])
    monkeypatch.setattr(runner, "_POLL_S", 0.02)
    busy = job_of(config, "train-sae/sae")
    thread, released = hold(tmp_path, busy)
    with caplog.at_level(logging.INFO, "sfnetlab"):
        follower = threading.Thread(target=runner.run, args=(options(config, tmp_path, skip_busy=True), STAGES))
        follower.start()
        while not (tmp_path / "fit-probes/mae/manifest.json").exists() or "waiting" not in caplog.text:
            time.sleep(0.02)
        assert not (tmp_path / "train-sae/sae").exists()
        assert builder_of(tmp_path, busy) is not None
        released.set()
        follower.join()
    thread.join()
    assert caplog.text.count("waiting") == 1
    assert payloads(tmp_path) == payloads(alone)


def test_two_processes_share_a_plan_and_the_one_that_lives_ends_with_the_same_bits(config, tmp_path, alone):
    first, second = (start_slow_run(config, tmp_path, seconds) for seconds in (0.3, 0.01))
    busy = job_of(config, "train-sae/sae")
    builder, deadline = None, time.monotonic() + 120
    while time.monotonic() < deadline:
        builder = builder_of(tmp_path, busy)
        begun = list(tmp_path.glob("train-sae/.sae.*/checkpoint.safetensors"))
        if builder and begun and len(list(tmp_path.glob("train-sae/.sae.*/progress.jsonl"))):
            break
        time.sleep(0.01)
    assert builder
    killed, other = (first, second) if builder["pid"] == first.pid else (second, first)
    killed.kill()
    killed.communicate()
    _, said = other.communicate(timeout=120)
    assert other.returncode == 0, said
    assert "goes on at step" in said
    assert payloads(tmp_path) == payloads(alone)


# --- status -----------------------------------------------------------------------------------------------------------


def status(capsys: pytest.CaptureFixture[str], config: Path, root: Path, *flags: str) -> str:
    assert cli.main(["status", str(config), "--out", str(root), *flags]) == 0
    return capsys.readouterr().out


def test_status_tells_how_far_a_training_is_where_it_runs_and_how_long_it_takes(config, tmp_path, capsys):
    job = job_of(config, "train-sae/sae")
    thread, released = hold(tmp_path, job)
    (work,) = tmp_path.glob("train-sae/.sae.*")
    rows = [{"epoch": epoch, "seconds": 60.0} for epoch in (1, 2, 3)]
    (work / "progress.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = f"{socket.gethostname()}, process {os.getpid()}"
    assert f"running  train-sae/sae (epoch 3 of 12; {where}; 9 min left)" in status(capsys, config, tmp_path)
    found = json.loads(status(capsys, config, tmp_path, "--json"))
    (told,) = [each for each in found["jobs"] if each["stage"] == "train-sae"]
    assert told["state"] == "running"
    assert told["running"]["epoch"] == 3
    assert 500 < told["left_s"] <= 540
    released.set()
    thread.join()
    assert "missing  train-sae/sae\n" in status(capsys, config, tmp_path)


def test_the_time_left_is_that_of_jobs_alike(config, alone, tmp_path, capsys):
    root = shutil.copytree(alone, tmp_path / "out")
    path = root / "fit-probes/sae-k2-seed0/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"wall_s": 40.0}))
    shutil.rmtree(root / "fit-probes/sae-k2-seed1")
    found = json.loads(status(capsys, config, root, "--json"))
    assert {(each["stage"], each["name"]): each["left_s"] for each in found["jobs"]}["fit-probes", "sae-k2-seed1"] == 40
    said = status(capsys, config, root, "--workers", "1,2")
    assert "more than 40 s left, one job after another: no job was measured that is like " in said
    assert "more than 40 s left with 2 workers as fast as the measured" in said


def test_where_nothing_was_measured_no_time_is_told(config, tmp_path, capsys):
    said = status(capsys, config, tmp_path, "--workers", "1,8")
    assert said.endswith("0 running; no job like those that are left was measured, so no times are known\n")


def test_the_time_left_on_workers_is_told_from_jobs_alike_of_another_experiment(config, alone, tmp_path, capsys):
    """Of the jobs that are alike, trainings are scaled by epochs and all by galaxies."""
    root, there = tmp_path / "out", shutil.copytree(alone, tmp_path / "there")
    for path in there.glob("*/[!.]*/manifest.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"wall_s": 30.0}))
    path = there / "prepare-survey/survey/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_galaxies": N // 2}))
    runner.run(options(config, root), ["prepare-survey", "import-embeddings"])
    path = tmp_path / "longer.toml"
    path.write_text(config.read_text().replace("epochs = 12", "epochs = 24"))
    flags = ("--workers", "1,2", "--like", str(there))
    found = json.loads(status(capsys, path, root, *flags, "--json"))
    left_s = {(each["stage"], each["name"]): each["left_s"] for each in found["jobs"]}
    assert left_s["prepare-survey", "survey"] == 0
    assert left_s["fit-probes", "mae"] == 60
    assert left_s["train-sae", "sae"] == 120
    assert found["left_s_on_workers"]["1"] == found["left_s"]
    # Two chains of a training, codes and probes, beside which probes of the embedding fill the second worker.
    assert 120 + 60 + 60 <= found["left_s_on_workers"]["2"] < found["left_s"]
    said = status(capsys, path, root, *flags)
    assert f"jobs alike in {there}, scaled by epochs and galaxies (2 times as many)" in said
    assert "with 2 workers as fast as the measured" in said


@pytest.mark.parametrize("numbers", ["0", "1,", "1,eight", "2.5", "-1"])
def test_numbers_of_workers_that_are_none_are_one_message(config, tmp_path, capsys, numbers):
    assert cli.main(["status", str(config), "--out", str(tmp_path), f"--workers={numbers}"]) == 2
    assert capsys.readouterr().err.startswith("sfnetlab: --workers: expected a number of processes from 1, found ")


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_without_results_tells_no_times(config, tmp_path, capsys, folder):
    assert cli.main(["status", str(config), "--out", str(tmp_path), "--like", str(tmp_path / folder)]) == 2
    assert "--like: expected the folder of an experiment, such as results/demo, found" in capsys.readouterr().err


def test_watching_ends_when_all_is_current(config, alone, capsys, monkeypatch):
    plan = [job for job in make_plan(load(config, ())) if job.stage in STAGES]
    monkeypatch.setattr(runner, "make_plan", lambda _: plan)
    said = status(capsys, config, alone, "--watch")
    assert said == f"{len(plan)} of {len(plan)} are current, 0 running; 0 s left, one job after another\n"


def chain(*seconds: float) -> dict[Job, float]:
    jobs: list[Job] = []
    for _ in seconds:
        jobs.append(Job("s", 1, "n", None, {"before": jobs[-1]} if jobs else {}))
    return dict(zip(jobs, seconds, strict=True))


@pytest.mark.parametrize(
    ("seconds", "n_workers", "total"),
    [
        (chain(1, 2, 3), 8, 6),
        (chain(1, 2) | chain(3, 4), 1, 10),
        (chain(1, 2) | chain(3, 4), 2, 7),
        (chain(4) | chain(2) | chain(2), 2, 4),
        ({}, 2, 0),
    ],
)
def test_the_makespan_is_that_of_jobs_that_begin_as_soon_as_they_can(seconds, n_workers, total):
    assert makespan(seconds, n_workers) == total


# --- results that another experiment has ------------------------------------------------------------------------------


def inode(root: Path, name: str) -> int:
    return (root / name).stat().st_ino


SURVEY, PROBES = "prepare-survey/survey/catalog.parquet", "fit-probes/mae/metrics.parquet"


@pytest.fixture
def other(config: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of another experiment on the same survey, in whose folder lie the results of the first."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(alone, tmp_path / "results/small")
    other = tmp_path / "other.toml"
    other.write_text(config.read_text().replace('"small"', '"other"').replace("epochs = 12", "epochs = 6"))
    return other


def test_what_two_experiments_have_in_common_is_made_once(other, alone):
    root, _ = runner.run(options(other, None), STAGES)
    assert root == Path("results/other")
    assert inode(root, SURVEY) == inode(Path("results/small"), SURVEY)
    assert inode(root, PROBES) == inode(Path("results/small"), PROBES)
    assert payloads(root / "train-sae") != payloads(alone / "train-sae")
    assert {each.kind for each in statuses(root, make_plan(load(other, ()))) if each.job.stage in STAGES} == {"current"}


def test_what_is_linked_stays_where_the_other_experiment_is_removed_or_made_again(other):
    root, _ = runner.run(options(other, None), ["prepare-survey"])
    before = (root / SURVEY).read_bytes()
    shutil.rmtree("results/small")
    assert (root / SURVEY).read_bytes() == before


def test_force_makes_what_others_have(other):
    forced = dataclasses.replace(options(other, None), force=True)
    root, _ = runner.run(forced, ["prepare-survey"])
    assert inode(root, SURVEY) != inode(Path("results/small"), SURVEY)


def test_beside_a_folder_that_out_names_nobody_looks_but_in_a_cache(other):
    made = [runner.run(options(other, Path(name), cache=cache), ["prepare-survey"])[0]
            for name, cache in (("elsewhere/plain", None), ("results/cached", Path("results")))]  # fmt: skip
    shared = inode(Path("results/small"), SURVEY)
    assert [inode(root, SURVEY) == shared for root in made] == [False, True]


def test_a_result_that_was_made_of_other_bits_is_not_linked(other):
    path = Path("results/small/import-embeddings/mae/manifest.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"read": {"survey": "of another machine"}}))
    root, _ = runner.run(options(other, None), ["prepare-survey", "import-embeddings"])
    features = "import-embeddings/mae/features.npy"
    assert inode(root, features) != inode(Path("results/small"), features)


def test_files_are_copied_where_there_are_no_hard_links(other, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    root, _ = runner.run(options(other, None), ["prepare-survey"])
    assert (root / SURVEY).read_bytes() == (Path("results/small") / SURVEY).read_bytes()
    assert inode(root, SURVEY) != inode(Path("results/small"), SURVEY)


def test_a_cache_that_is_no_folder_is_one_message(other, capsys):
    assert cli.main(["run", str(other), "--out", "results/x", "--cache", "nowhere", "--device", "cpu"]) == 2
    assert "--cache: expected a folder of results, such as results, found nowhere" in capsys.readouterr().err
