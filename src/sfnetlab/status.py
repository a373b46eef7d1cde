"""How far a plan is: what is current, what runs where, and how long the rest takes by the times measured so far."""

import heapq
import json
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sfnetlab.artifacts import State, builder_of, find_manifest, progress_of, state_of
from sfnetlab.jobs import Job
from sfnetlab.shards import builder_of_shard


@dataclass(frozen=True, kw_only=True)
class Running:
    """Who builds a job, and how far it is; None where that is not known."""

    host: str | None
    pid: int | None
    started: float | None
    """Seconds since 1970."""
    epoch: int | None
    """Epochs done, in a training."""
    epochs: int | None

    def __str__(self) -> str:
        parts = [f"{self.host}, process {self.pid}" if self.host else ""]
        if self.epochs is not None:
            parts.insert(0, f"epoch {self.epoch or 0} of {self.epochs}")
        return "; ".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What is known of one job."""

    job: Job
    kind: Literal["current", "stale", "missing", "running"]
    why: tuple[str, ...]
    running: Running | None
    left_s: float | None
    """Seconds until it is current; None where no job like it was measured."""

    def __str__(self) -> str:
        about = list(self.why)
        if self.running is not None:
            about = [text for text in (str(self.running), self.left_s is not None and left(self.left_s)) if text]
        return f"{self.kind:8} {self.job}" + (f" ({'; '.join(about)})" if about else "")


@dataclass(frozen=True)
class Like:
    """An experiment that is done, whose jobs tell how long those take that were not measured in the folder itself."""

    folder: Path
    growth: float | None
    """How many times its galaxies the survey has; None where a number is not known."""

    def __str__(self) -> str:
        by = "epochs" if self.growth is None else f"epochs and galaxies ({self.growth:.3g} times as many)"
        return f"what was not measured here: as long as jobs alike in {self.folder}, scaled by {by}"


def statuses(root: Path, plan: Sequence[Job], like: Like | None = None) -> list[JobStatus]:
    """Return the status of every job of a plan, in its order."""
    known: dict[str, State] = {}
    expected = expected_seconds(root, plan, like)
    return [_status(root, job, state_of(root, job, known), expected[job]) for job in plan]


def _status(root: Path, job: Job, state: State, expected_s: float | None) -> JobStatus:
    builder = builder_of(root, job) or builder_of_shard(root, job)
    if builder is None:
        left_s = 0.0 if state.kind == "current" else expected_s
        return JobStatus(job=job, kind=state.kind, why=state.why, running=None, left_s=left_s)
    history, reported = progress_of(root, job)
    epochs = _epochs(job.recipe["settings"]) if history or job.stage.startswith(("train", "finetune")) else None
    now, started = time.time(), builder.get("started")
    left_s = expected_s
    if epochs is not None and history:
        # The last epochs: the first one of a process takes longer.
        seconds = statistics.median(row["seconds"] for row in history[-20:])
        left_s = (epochs - history[-1]["epoch"]) * seconds - (now - reported)
    elif expected_s is not None and started is not None:
        left_s = expected_s - (now - started)
    running = Running(
        host=builder.get("host"),
        pid=builder.get("pid"),
        started=started,
        epoch=history[-1]["epoch"] if history else None,
        epochs=epochs,
    )
    left_s = None if left_s is None else max(0.0, left_s)
    return JobStatus(job=job, kind="running", why=(), running=running, left_s=left_s)


def _epochs(settings: Any) -> int | None:
    """Return the number of epochs that the settings of a training ask for, wherever in them it stands."""
    if not isinstance(settings, Mapping):
        return None
    found = settings.get("epochs")
    return (
        found if isinstance(found, int) else next((n for n in map(_epochs, settings.values()) if n is not None), None)
    )


# --- times ------------------------------------------------------------------------------------------------------------


def expected_seconds(root: Path, plan: Sequence[Job], like: Like | None = None) -> dict[Job, float | None]:
    """Return how long each job takes: the median of jobs like it that were done in this folder, None without any.

    Alike are jobs of the same stage with the same settings by name; where there are some, those of the same kind of
    features. Trainings of other numbers of epochs are scaled by these.

    Parameters
    ----------
    like
        Where else to look for jobs that none here is like. Their times are scaled by the galaxies, too: those of
        stages that take as long for any survey, such as figures, are then too long for a larger one.
    """
    known = [(_seconds_an_epoch(root), 1.0)]
    if like is not None:
        known.append((_seconds_an_epoch(like.folder), like.growth or 1.0))
    expected: dict[Job, float | None] = {}
    for job in plan:
        settings = job.recipe["settings"]
        kinds = list(_kinds(job.stage, settings))
        found = [factor * times[kind] for times, factor in known for kind in kinds if kind in times]
        expected[job] = found[0] * (_epochs(settings) or 1) if found else None
    return expected


def _seconds_an_epoch(root: Path) -> dict[tuple[object, ...], float]:
    """Return the median time of each kind of jobs that are done in a folder, divided by epochs where they have some."""
    measured: dict[tuple[object, ...], list[float]] = {}
    for directory in sorted(root.glob("*/[!.]*")):
        manifest = find_manifest(directory)
        if manifest is not None:
            settings = manifest["recipe"]["settings"]
            for kind in _kinds(manifest["stage"], settings):
                measured.setdefault(kind, []).append(manifest["wall_s"] / (_epochs(settings) or 1))
    return {kind: statistics.median(seconds) for kind, seconds in measured.items()}


def _kinds(stage: str, settings: Any) -> Iterator[tuple[object, ...]]:
    """Yield what jobs have in common that take as long as this one, the most like it first."""
    names = tuple(sorted(settings)) if isinstance(settings, Mapping) else ()
    parts = [part.get("kind") for part in settings.values() if isinstance(part, Mapping)] if names else []
    yield (stage, names, *(kind for kind in parts if isinstance(kind, str)))
    yield (stage, names, None)


def left(seconds: float) -> str:
    """Return a time to wait as people say it: `40 s left`, `4 min left`, `2 h 5 min left`."""
    if seconds < 90:
        return f"{seconds:.0f} s left"
    minutes = round(seconds / 60)
    return f"{minutes} min left" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min left"


def makespan(seconds: Mapping[Job, float], n_workers: int) -> float:
    """Return how long workers take for jobs, each of which makes one at a time, the first in the plan's order.

    Parameters
    ----------
    seconds
        How long each job takes, in the order of the plan. Inputs that are not among them are current.
    """
    jobs = list(seconds)
    users: dict[Job, list[int]] = {job: [] for job in jobs}
    n_awaited = [0] * len(jobs)
    for place, job in enumerate(jobs):
        for needed in {each for each in job.inputs.values() if each in seconds}:
            users[needed].append(place)
            n_awaited[place] += 1
    ready = [place for place, n in enumerate(n_awaited) if n == 0]
    busy: list[tuple[float, int]] = []
    now = 0.0
    while ready or busy:
        while ready and len(busy) < n_workers:
            place = heapq.heappop(ready)
            heapq.heappush(busy, (now + seconds[jobs[place]], place))
        now, place = heapq.heappop(busy)
        for user in users[jobs[place]]:
            n_awaited[user] -= 1
            if n_awaited[user] == 0:
                heapq.heappush(ready, user)
    return now


# --- for people and programs ------------------------------------------------------------------------------------------


_SHOWN = 3
"""Jobs without times that are named."""


def describe(found: Iterable[JobStatus], *, only_running: bool = False, workers: Sequence[int] = ()) -> str:
    """Return a line for each job, and unless all are current how long the rest takes: in turn, and on workers."""
    found = list(found)
    lines = [str(each) for each in found if each.kind == "running" or not only_running]
    if only_running or any(each.kind != "current" for each in found):
        n = {kind: sum(each.kind == kind for each in found) for kind in ("current", "running")}
        unmeasured = [str(each.job) for each in found if each.left_s is None]
        about = f"{n['current']} of {len(found)} are current, {n['running']} running"
        if unmeasured and len(unmeasured) == sum(each.kind != "current" for each in found):
            return "\n".join([*lines, f"{about}; no job like those that are left was measured, so no times are known"])
        more = "more than " if unmeasured else ""
        others = f", and {len(unmeasured) - _SHOWN} more" if len(unmeasured) > _SHOWN else ""
        why = f": no job was measured that is like {', '.join(unmeasured[:_SHOWN])}{others}" if unmeasured else ""
        lines.append(f"{about}; {more}{left(sum(each.left_s or 0.0 for each in found))}, one job after another{why}")
        lines += [
            f"{more}{left(seconds)} with {number} worker{'s' * (number > 1)} as fast as the measured"
            for number, seconds in _on(workers, found).items()
        ]
    return "\n".join(lines)


def as_json(root: Path, found: Iterable[JobStatus], workers: Sequence[int] = ()) -> str:
    """Return the same as JSON, with `left_s` in seconds for each job and in all, null where it is not known."""
    found = list(found)
    jobs = [
        {"stage": each.job.stage, "name": each.job.name, "key": each.job.key, "state": each.kind, "why": each.why,
         "left_s": each.left_s, "running": each.running and asdict(each.running)}
        for each in found
    ]  # fmt: skip
    known = [each.left_s for each in found if each.left_s is not None]
    total = {"left_s": sum(known), "left_s_on_workers": _on(workers, found), "unmeasured": len(found) - len(known)}
    return json.dumps({"folder": str(root), "jobs": jobs, **total}, indent=1)


def _on(workers: Sequence[int], found: Sequence[JobStatus]) -> dict[int, float]:
    """Return the seconds that each number of workers takes for what is not current."""
    seconds = {each.job: each.left_s or 0.0 for each in found if each.kind != "current"}
    return {n: makespan(seconds, n) for n in workers}
