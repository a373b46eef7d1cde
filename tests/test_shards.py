"""A job split into shards: whose rows, what is missing, and that joined they are the whole."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfnetlab import cli, runner, runtime
from sfnetlab.artifacts import build
from sfnetlab.errors import ArtifactError, ConfigError
from sfnetlab.jobs import Job, Shard
from sfnetlab.shards import finished_shards, missing_shards, parse_shard, remove_shards, shard_job
from sfnetlab.status import statuses
from small_run import options, payloads

JOB = Job(stage="embed-images", version=1, name="encoder", spec=None, inputs={})


@given(n_rows=st.integers(0, 500), batch_size=st.integers(1, 60), n=st.integers(1, 12))
def test_shards_part_the_rows_in_order_at_borders_of_batches(n_rows, batch_size, n):
    parts = [Shard(index, n).rows(n_rows, batch_size) for index in range(n)]
    assert [row for part in parts for row in part] == list(range(n_rows))
    assert all(part.start % batch_size == 0 for part in parts if part)
    batches = [-(-len(part) // batch_size) for part in parts]
    assert max(batches) - min(batches) <= 1


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "0/0", "1/4/2", "a/b", "1 / 4", "0x1/2"])
def test_a_shard_that_is_none_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=r"expected i/n with 0 <= i < n, such as 0/4 to 3/4, found"):
        parse_shard(text)


def make(root, *shards):
    for shard in shards:
        build(root, shard_job(JOB, shard), lambda work: {}, config_toml="", device="cpu")


def test_finished_shards_come_in_order(tmp_path):
    make(tmp_path, *(Shard(index, 11) for index in range(11)))
    assert [path.name for path in finished_shards(tmp_path, JOB)] == [f"encoder.shard-{i}-of-11" for i in range(11)]


def test_nobody_began_to_split(tmp_path):
    other = Job(stage="embed-images", version=1, name="encoder.b", spec=None, inputs={})
    build(tmp_path, shard_job(other, Shard(0, 2)), lambda work: {}, config_toml="", device="cpu")
    assert finished_shards(tmp_path, JOB) == []


def test_missing_shards_are_named(tmp_path):
    make(tmp_path, Shard(1, 4))
    with pytest.raises(ArtifactError, match=r"--shard 0/4, 2/4, 3/4, or --force"):
        finished_shards(tmp_path, JOB)


def test_shards_of_another_recipe_do_not_count(tmp_path):
    make(tmp_path, Shard(0, 2), Shard(1, 2))
    changed = Job(stage=JOB.stage, version=2, name=JOB.name, spec=None, inputs={})
    assert finished_shards(tmp_path, changed) == []


def test_joined_shards_are_removed_and_nothing_else(tmp_path):
    make(tmp_path, Shard(0, 2), Shard(1, 2))
    build(tmp_path, JOB, lambda work: {}, config_toml="", device="cpu")
    remove_shards(tmp_path, JOB)
    assert [path.name for path in (tmp_path / "embed-images").iterdir()] == ["encoder"]


EXPERIMENT = """
name = "split"
[survey]
kind = "mock"
n_galaxies = 600
image_size = 32
[targets.metallicity]
columns = ["oh_p50"]
[training]
epochs = 1
[[features]]
name = "sfnet"
kind = "sfnet"
target = "metallicity"
[[features]]
name = "random"
kind = "encoder"
weights = "random"
"""


# --- on workers -------------------------------------------------------------------------------------------------------

FROZEN = """
name = "frozen"
seeds = [0]
[survey]
kind = "mock"
n_galaxies = 300
image_size = 16
[targets.metallicity]
columns = ["oh_p50"]
[[features]]
name = "random"
kind = "encoder"
weights = "random"
image_size = 32
[probes]
kinds = ["linear"]
budgets = []
n_bootstrap = 100
"""
RUN = ("prepare-survey", "embed-images", "fit-probes")


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tmp_path_factory.mktemp("frozen") / "frozen.toml"
    config.write_text(FROZEN)
    return config


@pytest.fixture(scope="module")
def undivided(frozen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one process that splits nothing."""
    root, _ = runner.run(options(frozen, tmp_path_factory.mktemp("undivided")), RUN)
    return root


def said_by_workers(root: Path) -> str:
    return "".join(path.read_text() for path in (root / "logs").iterdir())


def test_workers_share_the_embedding_of_a_large_survey_and_the_bits_are_the_same(
    frozen, undivided, tmp_path, monkeypatch
):
    monkeypatch.setattr(runner, "SPLIT_GALAXIES", 300)
    monkeypatch.setenv("OMP_NUM_THREADS", str(2 * runtime.n_threads()))  # as many a worker as one process has
    root, _ = runner.run(options(frozen, tmp_path, workers=2), RUN)
    assert payloads(root) == payloads(undivided)
    assert not list((root / "embed-images").glob("*.shard-*"))
    said = said_by_workers(root)
    assert all(f"embed-images/random-seed0, shard {shard}" in said for shard in ("0/2", "1/2"))


def test_a_small_survey_is_not_shared_nor_what_another_experiment_has(frozen, undivided, tmp_path):
    root, plan = runner.run(options(frozen, tmp_path), RUN[:1])
    (job,) = (job for job in plan if job.stage == "embed-images")
    large = runner.Building(root, config_toml="", device="cpu", split_galaxies=300)
    runner.build_here(dataclasses.replace(large, split_galaxies=301), job, Shard(0, 2))
    runner.build_here(dataclasses.replace(large, shared=(undivided,)), job, Shard(0, 2))
    assert not list(root.glob("embed-images/*"))
    runner.build_here(large, job, Shard(0, 2))
    assert [path.name for path in root.glob("embed-images/*")] == ["random-seed0.shard-0-of-2"]


def test_a_run_alone_makes_the_shards_that_workers_left(frozen, undivided, tmp_path):
    root, plan = runner.run(options(frozen, tmp_path), RUN[:1])
    (job,) = (job for job in plan if job.stage == "embed-images")
    runner.run(options(frozen, tmp_path, shard=Shard(1, 3)), ["embed-images"])
    assert [shard.index for shard in missing_shards(root, job)] == [0, 2]
    runner.run(options(frozen, tmp_path), RUN)
    assert payloads(root) == payloads(undivided)
    assert missing_shards(root, job) == []


def test_status_tells_who_builds_a_shard(tmp_path):
    def look(_: Path) -> dict[str, int]:
        (found,) = statuses(tmp_path, [JOB])
        assert found.running is not None
        assert found.running.pid == os.getpid()
        return {}

    build(tmp_path, shard_job(JOB, Shard(0, 2)), look, config_toml="", device="cpu")
    assert [found.kind for found in statuses(tmp_path, [JOB])] == ["missing"]


@pytest.mark.slow
def test_shards_of_which_one_was_killed_join_to_exactly_the_undivided_tables(tmp_path):
    config = tmp_path / "split.toml"
    config.write_text(EXPERIMENT)
    whole, split = (["--out", str(tmp_path / name), "--device", "cpu", "-q"] for name in ("whole", "split"))
    for out in (whole, split):
        for stage in ("prepare-survey", "train-sfnet"):
            assert cli.main([stage, str(config), *out]) == 0
    assert cli.main(["embed-images", str(config), *whole]) == 0

    command = [sys.executable, "-m", "sfnetlab", "embed-images", str(config), *split, "--shard"]
    killed = subprocess.Popen([*command, "1/5"], start_new_session=True)
    work = tmp_path / "split/embed-images"
    while killed.poll() is None and not list(work.glob(".*shard-1-of-5*")):
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert cli.main(["embed-images", str(config), *split, "--shard", "0/5"]) == 0
    assert cli.main(["embed-images", str(config), *split]) == 2, "shards are missing"
    for shard in ("1/5", "2/5", "3/5", "4/5"):  # of three batches: two shards have no rows
        assert cli.main(["embed-images", str(config), *split, "--shard", shard]) == 0
    assert cli.main(["embed-images", str(config), *split]) == 0

    for job in ("sfnet-k4-seed0", "random-seed0"):
        files = [json.loads((tmp_path / out / "embed-images" / job / "manifest.json").read_text()) for out in
                 ("whole", "split")]  # fmt: skip
        assert files[0]["key"] == files[1]["key"]
        name = "features.npz" if job.startswith("sfnet") else "features.npy"
        tables = [tmp_path / out / "embed-images" / job / name for out in ("whole", "split")]
        a, b = (np.load(table) for table in tables)
        arrays = [(a, b)] if name.endswith("npy") else [(a[key], b[key]) for key in a.files]
        assert all(np.array_equal(x, y) for x, y in arrays)
        assert not list((tmp_path / "split/embed-images").glob("*.shard-*"))
