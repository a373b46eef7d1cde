"""Artifacts: keys, staleness, whole-or-absent directories, feature tables."""

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sfnetlab import artifacts, files
from sfnetlab.artifacts import build, read_features, state_of, write_csr_features, write_dense_features, write_rows
from sfnetlab.errors import ArtifactError
from sfnetlab.jobs import Job


@dataclass(frozen=True)
class Spec:
    epochs: int = 1
    seed: int = 0
    place: Path = Path("here")


def job(inputs: dict[str, Job] | None = None, **settings: object) -> Job:
    return Job(stage="train", version=1, name="net", spec=Spec(**settings), inputs=inputs or {})  # type: ignore[arg-type]


def make(text: str = "weights"):
    def write(work: Path) -> dict[str, float]:
        (work / "weights.txt").write_text(text)
        return {"loss": 0.5}

    return write


def build_it(root: Path, what: Job, how=None) -> None:
    build(root, what, how or make(), config_toml="", device="cpu")


def test_a_built_job_is_current(tmp_path):
    build_it(tmp_path, job())
    assert state_of(tmp_path, job()).kind == "current"


def test_nothing_on_disk_is_missing(tmp_path):
    assert state_of(tmp_path, job()).kind == "missing"


def test_a_changed_setting_is_stale_and_says_which(tmp_path):
    build_it(tmp_path, job())
    assert state_of(tmp_path, job(epochs=2)) == ("stale", ("epochs: 1 -> 2",))


def test_a_changed_input_is_stale_and_says_which(tmp_path):
    build_it(tmp_path, job({"survey": job(seed=1)}))
    assert state_of(tmp_path, job({"survey": job(seed=2)})) == ("stale", ("input survey changed",))


def chain(source: int, epochs: int = 1) -> list[Job]:
    """A survey of some files, a network trained on it, and features made by both."""
    survey = Job("prepare", 1, "survey", Spec(seed=source), {})
    network = Job("train", 1, "net", Spec(epochs=epochs), {"survey": survey})
    return [survey, network, Job("embed", 1, "features", Spec(), {"survey": survey, "network": network})]


def test_results_stay_current_if_what_they_read_is_made_again_to_the_same_content(tmp_path):
    for each in chain(source=0):
        build_it(tmp_path, each)
    moved = chain(source=1)
    assert [state_of(tmp_path, each).kind for each in moved] == ["stale", "stale", "stale"]
    build(tmp_path, moved[0], make(), config_toml="elsewhere", device="cpu")
    assert [state_of(tmp_path, each).kind for each in moved] == ["current", "current", "current"]
    assert state_of(tmp_path, moved[2]) == artifacts.SAME_CONTENT
    for each in moved:
        artifacts.take_over(tmp_path, each)
    assert [state_of(tmp_path, each) for each in moved] == [("current", ())] * 3
    assert (tmp_path / "embed/features/weights.txt").read_text() == "weights"


def test_results_are_stale_if_what_they_read_is_made_again_to_another_content(tmp_path):
    for each in chain(source=0):
        build_it(tmp_path, each)
    moved = chain(source=1)
    build_it(tmp_path, moved[0], make("other weights"))
    assert [state_of(tmp_path, each).kind for each in moved] == ["current", "stale", "stale"]


def test_the_same_content_does_not_make_up_for_another_setting(tmp_path):
    for each in chain(source=0):
        build_it(tmp_path, each)
    moved = chain(source=1, epochs=2)
    build_it(tmp_path, moved[0])
    assert [state_of(tmp_path, each).kind for each in moved] == ["current", "stale", "stale"]


def test_a_place_is_not_part_of_the_key():
    assert job(place=Path("a")).key == job(place=Path("b")).key


@given(st.permutations(["a", "b", "c"]))
def test_the_order_of_inputs_is_not_part_of_the_key(order):
    inputs = {name: job(seed=ord(name)) for name in order}
    assert job(inputs).key == job(dict(sorted(inputs.items()))).key


def test_of_many_changed_inputs_the_first_are_named_and_the_others_counted(tmp_path):
    seeds = [f"seed{i}" for i in range(9)]
    build_it(tmp_path, job({seed: job(seed=1) for seed in seeds}))
    why = state_of(tmp_path, job({seed: job(seed=2) for seed in seeds})).why
    assert why == ("input seed0 changed", "input seed1 changed", "input seed2 changed", "6 more inputs changed")


def test_a_truncated_payload_is_stale(tmp_path):
    build_it(tmp_path, job())
    (tmp_path / "train/net/weights.txt").write_text("w")
    assert state_of(tmp_path, job()).why == ("weights.txt is damaged: expected 7 bytes, found 1",)


def test_an_unknown_manifest_format_is_refused(tmp_path):
    build_it(tmp_path, job())
    path = tmp_path / "train/net/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(ArtifactError, match="expected format 1, found 99"):
        state_of(tmp_path, job())


def test_a_failed_build_leaves_the_old_result(tmp_path):
    build_it(tmp_path, job())

    def fail(work: Path) -> dict[str, float]:
        (work / "weights.txt").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        build_it(tmp_path, job(epochs=2), fail)
    assert (tmp_path / "train/net/weights.txt").read_text() == "weights"
    assert state_of(tmp_path, job()).kind == "current"


def test_a_failed_build_finds_its_own_work_again_and_no_other_recipe_does(tmp_path):
    def fail(work: Path) -> dict[str, float]:
        (work / artifacts.CHECKPOINT).write_text("step 7")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        build_it(tmp_path, job(), fail)
    seen = []
    build_it(tmp_path, job(epochs=2), lambda work: seen.append((work / artifacts.CHECKPOINT).exists()) or {})
    with pytest.raises(RuntimeError):
        build_it(tmp_path, job(), fail)
    build_it(tmp_path, job(), lambda work: seen.append((work / artifacts.CHECKPOINT).read_text()) or {})
    assert seen == [False, "step 7"]


def test_what_a_kill_left_of_a_file_is_not_published(tmp_path):
    def killed_while_writing(work: Path) -> dict[str, float]:
        with files.replacing(work / "progress.jsonl") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_it(tmp_path, job(), killed_while_writing)
    build_it(tmp_path, job())
    assert sorted(path.name for path in (tmp_path / "train/net").iterdir()) == [
        "config.toml", "manifest.json", "metrics.json", "weights.txt",
    ]  # fmt: skip


def test_publishing_leaves_no_litter(tmp_path):
    build_it(tmp_path, job())
    build_it(tmp_path, job(epochs=2))
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["net"]


def test_a_kill_between_manifest_and_rename_needs_only_the_rename(tmp_path, monkeypatch):
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        build_it(tmp_path, job())
    monkeypatch.undo()

    def never(work: Path) -> dict[str, float]:
        raise AssertionError

    build_it(tmp_path, job(), never)
    assert state_of(tmp_path, job()).kind == "current"


def test_two_processes_cannot_build_the_same_job(tmp_path):
    with pytest.raises(ArtifactError, match="is building train/net; wait for it or stop it"):
        build_it(tmp_path, job(), lambda work: build_it(tmp_path, job()) or {})


@pytest.mark.parametrize(
    ("number", "says"), [(errno.ENOSPC, "no space"), (errno.EROFS, "read-only"), (errno.EACCES, "permission")]
)
def test_a_full_or_read_only_disk_is_a_message(tmp_path, number, says):
    def fail(work: Path) -> dict[str, float]:
        raise OSError(number, os.strerror(number), str(work / "x"))

    with pytest.raises(ArtifactError, match=says):
        build_it(tmp_path, job(), fail)


def test_a_results_folder_that_is_a_file_is_a_message(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(ArtifactError, match="choose another folder with --out"):
        build_it(tmp_path / "results", job())


def test_a_metric_that_is_not_finite_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        build_it(tmp_path, job(), lambda work: {"loss": float("nan")})
    assert state_of(tmp_path, job()).kind == "missing"


def rows(ids: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"id_str": ids, "split": "train"})


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_features_come_back_by_id_in_the_order_asked(tmp_path, kind):
    values = np.array([[1, 0], [0, 2], [3, 0]], dtype=np.float32)
    write_rows(tmp_path, rows(["a", "b", "c"]))
    if kind == "sparse":
        write_csr_features(tmp_path, sparse.csr_array(values))
    else:
        write_dense_features(tmp_path, values)
    chosen = read_features(tmp_path).of(pd.Series(["c", "a"]))
    dense = chosen.toarray() if sparse.issparse(chosen) else chosen
    np.testing.assert_array_equal(dense, values[[2, 0]])


def test_a_galaxy_without_features_is_an_error(tmp_path):
    write_rows(tmp_path, rows(["a"]))
    write_dense_features(tmp_path, np.ones((1, 2)))
    with pytest.raises(ArtifactError, match=r"1 of 2 galaxies have no features \(first: z\)"):
        read_features(tmp_path).of(pd.Series(["a", "z"]))


def test_a_reserved_array_takes_its_disk_space_at_once(tmp_path):
    path = tmp_path / "x.npy"
    array = files.create_array(path, (1000, 1000), "uint8")
    array[3] = 7
    array.flush()
    assert os.stat(path).st_blocks * 512 >= 1_000_000
    assert np.load(path)[3].min() == 7
