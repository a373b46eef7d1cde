"""Results on file systems that lack an operation: the next best, one warning, never a traceback."""

import errno
import fcntl
import logging
import mmap
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from sfnetlab import files, runner, runtime
from sfnetlab.artifacts import build, state_of
from sfnetlab.errors import ArtifactError
from sfnetlab.jobs import Job


def refuse(monkeypatch: pytest.MonkeyPatch, place: object, name: str, number: int, *, of=lambda *a, **k: True) -> None:
    """Let a function of the system fail as it does on a file system that lacks it, for arguments that `of` picks."""
    real = getattr(place, name)

    def call(*arguments, **settings):
        if of(*arguments, **settings):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **settings)

    monkeypatch.setattr(place, name, call)


def job() -> Job:
    return Job(stage="train", version=1, name="net", spec=None, inputs={})


def build_it(root: Path, text: str = "weights") -> None:
    def make(work: Path) -> dict[str, float]:
        files.write_text(work / "weights.txt", text)
        return {"loss": 0.5}

    build(root, job(), make, config_toml="", device="cpu")


def is_folder(descriptor: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{descriptor}")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF])
def test_a_folder_that_cannot_be_synced_is_a_warning(number, tmp_path, monkeypatch, caplog):
    refuse(monkeypatch, os, "fsync", number, of=is_folder)
    build_it(tmp_path)
    assert state_of(tmp_path, job()).kind == "current"
    assert "this file system cannot say when files are on the disk" in caplog.text


def test_a_folder_that_cannot_even_be_opened_for_it_is_one_too(tmp_path, monkeypatch, caplog):
    refuse(monkeypatch, os, "open", errno.EACCES, of=lambda path, *_: Path(path) == tmp_path)
    files.fsync(tmp_path)
    assert "cannot say when files are on the disk" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_stays_an_error(number, tmp_path, monkeypatch):
    refuse(monkeypatch, os, "fsync", number)
    with pytest.raises(ArtifactError, match="free some and run again"):
        build_it(tmp_path)


def test_a_disk_that_fills_up_while_numpy_writes_an_array_is_a_message(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(OSError, match="1000 requested and 496 written") as raised:
            np.save(tmp_path / "x.npy", np.zeros(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "no space is left on the disk" in str(files.advice_on(raised.value))


def test_a_disk_that_fails_stays_an_error(tmp_path, monkeypatch):
    refuse(monkeypatch, os, "fsync", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        build_it(tmp_path)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL])
def test_folders_that_cannot_be_renamed_are_copied(number, tmp_path, monkeypatch, caplog):
    """As those of the lower layer of a container's file system."""
    build_it(tmp_path, "old")
    (tmp_path / "train/net/manifest.json").write_text("{}")
    refuse(monkeypatch, Path, "rename", number)
    with pytest.raises(ArtifactError):
        state_of(tmp_path, job())
    build_it(tmp_path, "new")
    assert state_of(tmp_path, job()).kind == "current"
    assert (tmp_path / "train/net/weights.txt").read_text() == "new"
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["net"]
    assert "this file system cannot rename" in caplog.text


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_folder_without_locks_is_guarded_by_a_file(number, tmp_path, monkeypatch):
    """NFS has locks of what is open for writing, and no folder can be."""
    refuse(monkeypatch, fcntl, "flock", number, of=lambda descriptor, _: is_folder(descriptor))
    folder = tmp_path / "work"
    folder.mkdir()
    with files.locked(folder):
        with pytest.raises(BlockingIOError), files.locked(folder):
            pass
        assert (tmp_path / "work.lock").exists()
    assert not (tmp_path / "work.lock").exists()


def test_without_any_locks_results_are_built_with_a_warning(tmp_path, monkeypatch, caplog):
    refuse(monkeypatch, fcntl, "flock", errno.ENOSYS)
    build_it(tmp_path)
    assert state_of(tmp_path, job()).kind == "current"
    assert "this file system has no locks: run one command at a time" in caplog.text


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL])
def test_arrays_are_held_in_memory_where_files_cannot_be_mapped(number, tmp_path, monkeypatch, caplog):
    refuse(monkeypatch, mmap, "mmap", number)
    array = files.create_array(tmp_path / "a.npy", (3, 2), "float32")
    array[:] = np.arange(6).reshape(3, 2)
    files.finish_array(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(files.read_array(tmp_path / "a.npy"), np.arange(6).reshape(3, 2))
    assert "cannot map files: arrays are held in memory" in caplog.text


def test_space_that_cannot_be_reserved_is_a_warning(tmp_path, monkeypatch, caplog):
    refuse(monkeypatch, os, "posix_fallocate", errno.EOPNOTSUPP)
    assert files.create_array(tmp_path / "a.npy", (3, 2), "float32").shape == (3, 2)
    assert "cannot reserve space" in caplog.text


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EACCES])
def test_a_link_that_is_refused_is_a_warning_that_says_where_the_figures_are(number, tmp_path, monkeypatch, caplog):
    """As on Windows' shares and exFAT."""
    refuse(monkeypatch, os, "symlink", number)
    figures = Job(stage="make-figures", version=1, name="figures", spec=None, inputs={})
    (tmp_path / "make-figures/figures").mkdir(parents=True)
    runner.link(tmp_path, figures)
    assert f"no link, see {tmp_path / 'make-figures/figures'}" in caplog.text


def test_a_full_disk_in_any_command_is_one_message(capsys):
    def command() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/catalog.fits")

    assert runner.exit_status(command) == 2
    assert capsys.readouterr().err.startswith("sfnetlab: out/catalog.fits: no space is left on the disk")


def test_warnings_of_one_form_that_say_other_things_all_come(capsys):
    runtime.configure_logging(0)
    log = logging.getLogger("sfnetlab.somewhere")
    for what in ("classes 'large': 7 galaxies", "classes 'rare': 7 galaxies", "classes 'rare': 12 galaxies"):
        log.warning("later stages will stop: %s", what)
    said = capsys.readouterr().err
    assert (said.count("'large'"), said.count("'rare'"), said.count("12")) == (1, 1, 0)


def test_a_warning_comes_once_and_the_rest_are_counted(capsys):
    def command() -> None:
        for i in range(3):
            logging.getLogger("sfnetlab.x").warning("%d of %d columns", i, 8)
            logging.getLogger("sfnetlab.x").info("epoch %d", i)
            logging.getLogger("sfnetlab.x").info("no labels")

    def lines(verbosity: int) -> list[str]:
        assert runner.exit_status(command, verbosity) == 0
        return [line[9:] for line in capsys.readouterr().err.splitlines()]

    counted = "2 more warnings of 1 kinds; -v shows each"
    assert lines(0) == ["0 of 8 columns", "epoch 0", "no labels", "epoch 1", "epoch 2", counted]
    assert lines(-1) == ["0 of 8 columns"]
    assert len(lines(1)) == 9
