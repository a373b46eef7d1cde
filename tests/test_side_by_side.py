"""Several processes on one results folder: nobody builds what another builds, and who dies is followed."""

import logging
import threading
import time
from pathlib import Path

import pytest

from sfnetlab import runner
from sfnetlab.artifacts import build, builder_of
from sfnetlab.config import load
from sfnetlab.errors import BusyError
from sfnetlab.jobs import Job
from sfnetlab.plan import make_plan
from small_run import STAGES, options, payloads, start_slow_run, write_experiment


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
