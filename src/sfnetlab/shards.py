"""How a job is split over several machines: each shard makes the features of some rows, and the job joins them.

A shard is a result like any other, in a directory beside that of the job: `<stage>/<name>.shard-<index>-of-<n>/`.
"""

import glob
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfnetlab.artifacts import running, state_of
from sfnetlab.errors import ArtifactError, ConfigError
from sfnetlab.jobs import Job, Shard


@dataclass(frozen=True)
class ShardSpec:
    """The settings of a shard, which make its key: those of the whole job, and which part of how many it is."""

    spec: Any
    index: int
    n: int


def parse_shard(text: str) -> Shard:
    """Return the shard that `--shard i/n` names, with 0 <= i < n.

    Raises
    ------
    ConfigError
        If the text has another form.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise ConfigError(f"--shard: expected i/n with 0 <= i < n, such as 0/4 to 3/4, found {text!r}")
    return Shard(int(match[1]), int(match[2]))


def shard_job(job: Job, shard: Shard) -> Job:
    """Return the job that makes one shard of a job."""
    return replace(
        job,
        name=f"{job.name}.shard-{shard.index}-of-{shard.n}",
        spec=ShardSpec(spec=job.spec, index=shard.index, n=shard.n),
    )


def finished_shards(root: Path, job: Job) -> list[Path]:
    """Return the directories of a job's shards in order if all are current, or none if no shard is current.

    Raises
    ------
    ArtifactError
        If some of n shards are current, but others are missing or stale.
    """
    n, absent = _begun(root, job)
    if absent:
        named = ", ".join(f"{index}/{n}" for index in absent[:8])
        raise ArtifactError(
            f"{job.directory(root)}: shards are missing: run `sfnetlab {job.stage} CONFIG` with --shard "
            f"{named}{' ...' if len(absent) > 8 else ''}, or --force to do without shards"
        )
    return [shard_job(job, Shard(index, n)).directory(root) for index in range(n)]


def missing_shards(root: Path, job: Job) -> list[Shard]:
    """Return the shards that are to be made before those that are current can be joined; none if no shard is."""
    n, absent = _begun(root, job)
    return [Shard(index, n) for index in absent]


def _begun(root: Path, job: Job) -> tuple[int, list[int]]:
    """Return into how many shards a job was split, of which some are current, and which are not; 0 if it was not."""
    begun: tuple[int, list[int]] = (0, [])
    for n in sorted({_n_of(path) for path in _directories(root, job)}):
        absent = [i for i in range(n) if state_of(root, shard_job(job, Shard(i, n))).kind != "current"]
        if not absent:
            return n, []
        if len(absent) < n:
            begun = (n, absent)
    return begun


def builder_of_shard(root: Path, job: Job) -> dict[str, Any] | None:
    """Return who builds a shard of a job, as `builder_of` does for the whole; of several, the first."""
    works = sorted(job.directory(root).parent.glob(f".{glob.escape(job.name)}.shard-*"))
    return next((builder for work in works if (builder := running(work)) is not None), None)


def remove_shards(root: Path, job: Job) -> None:
    """Remove the directories of all shards of a job. Call this after they are joined."""
    for directory in _directories(root, job):
        shutil.rmtree(directory, ignore_errors=True)  # another process may do so too


def _directories(root: Path, job: Job) -> list[Path]:
    """Return the directories of all shards of a job, finished or not, whatever the number of parts."""
    pattern = re.compile(re.escape(job.name) + r"\.shard-\d+-of-\d+")
    return sorted(path for path in job.directory(root).parent.glob("*.shard-*") if pattern.fullmatch(path.name))


def _n_of(directory: Path) -> int:
    """Return the number of parts, which stands in the name of a shard's directory."""
    return int(directory.name.rpartition("-")[2])
