"""Runs the jobs of a plan: skips what is current, builds what is not, explains what is missing.

Stage modules are imported by name when one of their jobs is built, so that nothing heavy loads before.
"""

import argparse
import functools
import importlib
import json
import logging
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfnetlab import config, runtime, status
from sfnetlab.artifacts import MANIFEST, SAME_CONTENT, State, build, builder_of, find_shared, state_of, take_over
from sfnetlab.errors import ArtifactError, BusyError, ConfigError, DataError, SfnetlabError
from sfnetlab.files import advice_on, path_argument
from sfnetlab.jobs import WHOLE, Job, Metrics, Shard, Task
from sfnetlab.plan import STAGES, make_plan, memory_bytes
from sfnetlab.schema import Experiment
from sfnetlab.shards import finished_shards, missing_shards, parse_shard, remove_shards, shard_job

log = logging.getLogger(__name__)

Build = Callable[[Any, Task], Metrics]
SURVEY, PROBED = "prepare-survey", "fit-probes"
"""The stage whose result is held against all that the experiment asks for, and the one that asks for most of it."""

SPLIT_GALAXIES = 2**14
"""From so many galaxies on, several workers share each job of a stage that can be split."""
RESULTS = Path("results")
"""The folder of all experiments, below the folder in which the command runs."""
_POLL_S = 1.0
"""How often one who waits for others looks."""
_POLLS_BETWEEN_LINES = 60
_WATCH_S, _WATCH_NO_TERMINAL_S = 2.0, 60.0
"""How often `status --watch` looks, on a terminal and without."""


@dataclass(frozen=True)
class Options:
    """The flags that `run` and every stage share."""

    config: Path
    out: Path | None
    overrides: tuple[str, ...]
    force: bool
    device: str
    shard: Shard = WHOLE
    skip_busy: bool = False
    cache: Path | None = None
    workers: int | None = None
    """Processes on this machine that build jobs; None: this one."""
    cluster: str | None = None
    """Address of a Dask scheduler or a TOML file, see `cluster.compute`."""

    def load(self) -> tuple[Experiment, Path]:
        experiment = config.load(self.config, self.overrides)
        return experiment, self.out or RESULTS / experiment.name

    def shared(self, root: Path) -> tuple[Path, ...]:
        """Return the folders of other experiments whose results may stand for those in `root`.

        They are the others in `results` and those in the folder of `--cache`. Beside a folder that `--out` names
        nobody looks: anything may lie there.
        """
        if self.force:
            return ()
        if self.cache is not None and not self.cache.is_dir():
            raise ConfigError(f"--cache: expected a folder of results, such as {RESULTS}, found {self.cache}")
        places = [self.cache] if self.cache is not None else []
        if self.out is None and RESULTS.is_dir():
            places.append(RESULTS)
        folders = (folder for place in places for folder in sorted(place.iterdir()) if folder.is_dir())
        return tuple(folder for folder in folders if folder.resolve() != root.resolve())


@dataclass(frozen=True)
class Building:
    """What all jobs of one run share."""

    root: Path
    config_toml: str
    device: str
    """A device of torch."""
    again: bool = False
    """Whether results that are current are made again."""
    shard: Shard = WHOLE
    experiment: Experiment | None = None
    """What a survey is held against once it is prepared; None: nothing."""
    is_whole: bool = False
    """Whether what a survey lacks for the experiment is an error and not a warning."""
    shared: tuple[Path, ...] = ()
    """Folders of other experiments, whose results are linked where they are the same."""
    split_galaxies: int = SPLIT_GALAXIES

    def part(self, job: Job) -> Job:
        """Return the job that makes what of a job is wanted: all of it, or a shard."""
        return job if self.shard == WHOLE else shard_job(job, self.shard)


def add_flags(parser: argparse.ArgumentParser, *, builds: bool = True, splits: bool = False) -> None:
    """Add the flags that `run`, `status` and every stage share; `status` builds nothing and has fewer."""
    parser.add_argument("config", type=path_argument, metavar="CONFIG", help="a TOML file, see `sfnetlab schema`")
    parser.add_argument("--out", type=path_argument, metavar="DIR", help="where results go (default: results/NAME)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override a setting, for example --set features.sae.n_latents=512 (repeatable)",
    )
    if builds:
        parser.add_argument("--force", action="store_true", help="build again what is current")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--workers", metavar="N", help="build with N processes on this machine")
        how.add_argument(
            "--cluster",
            metavar="ADDRESS|FILE",
            help="build on a Dask cluster: the address of its scheduler, or a TOML file that says how to get workers "
            "from Slurm, PBS or SGE",
        )
        how.add_argument(
            "--skip-busy",
            action="store_true",
            help="share the work with others who run the same command: take what nobody is building, wait for the rest",
        )
        parser.add_argument(
            "--cache",
            type=path_argument,
            metavar="DIR",
            help="link results that another experiment in this folder has already (without --out: in results, too)",
        )
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    if splits:
        parser.add_argument(
            "--shard",
            default="0/1",
            metavar="I/N",
            help="make one of N parts, 0/N to N-1/N, each by a process or machine of its own; the stage without this "
            "flag joins them",
        )
    noise = parser.add_mutually_exclusive_group()
    noise.add_argument("-v", action="store_const", const=1, dest="verbosity", default=0, help="say more")
    noise.add_argument("-q", action="store_const", const=-1, dest="verbosity", help="say less")


def options(arguments: argparse.Namespace) -> Options:
    return Options(
        config=arguments.config,
        out=arguments.out,
        overrides=tuple(arguments.overrides),
        force=getattr(arguments, "force", False),
        device=getattr(arguments, "device", "auto"),
        shard=parse_shard(getattr(arguments, "shard", "0/1")),
        skip_busy=getattr(arguments, "skip_busy", False),
        cache=getattr(arguments, "cache", None),
        workers=n_workers(arguments.workers) if getattr(arguments, "workers", None) is not None else None,
        cluster=getattr(arguments, "cluster", None),
    )


def n_workers(text: str) -> int:
    """Return the number that `--workers` names; raises ConfigError if it is none."""
    if not text.isdecimal() or int(text) == 0:
        raise ConfigError(f"--workers: expected a number of processes from 1, found {text!r}")
    return int(text)


def run(chosen: Options, stages: Sequence[str] = tuple(STAGES)) -> tuple[Path, list[Job]]:
    """Build what is not current of the given stages; returns the results folder and the whole plan.

    Raises
    ------
    ArtifactError
        If a stage is run alone and one of its inputs is not current.
    DataError
        If the prepared survey lacks what the experiment asks for.
    """
    experiment, root = chosen.load()
    plan = make_plan(experiment)
    wanted = [job for job in plan if job.stage in stages]
    known: dict[str, State] = {}
    todo = [job for job in wanted if chosen.force or state_of(root, job, known).kind != "current"]
    for job in wanted:
        if not chosen.force and known[job.key] == SAME_CONTENT:
            take_over(root, job)
    if chosen.shard != WHOLE:
        todo = [job for job in todo if chosen.force or state_of(root, shard_job(job, chosen.shard)).kind != "current"]
    if not todo:
        log.info("%s: all %d results are current", root, len(wanted))
        return root, plan
    log.info("%s: %d of %d results are current", root, len(wanted) - len(todo), len(wanted))
    if chosen.force and chosen.skip_busy:
        raise ConfigError("--force and --skip-busy: each process would build all again; leave one of them out")
    _check_survey(root, plan, todo)
    runtime.keep_caches()
    is_whole = {SURVEY, PROBED} <= {*stages}
    (survey,) = (job for job in plan if job.stage == SURVEY)
    if is_whole and survey not in todo:
        _require_sufficient(experiment, survey.directory(root))
    building = Building(
        root=root,
        experiment=experiment,
        is_whole=is_whole,
        config_toml=config.as_toml(experiment),
        device=chosen.device,
        again=chosen.force,
        shard=chosen.shard,
        shared=chosen.shared(root),
        split_galaxies=SPLIT_GALAXIES,
    )
    if chosen.workers is None and chosen.cluster is None:
        building = replace(building, device=runtime.resolve_device(chosen.device))
        _build_in_turn(building, todo, skip_busy=chosen.skip_busy)
    else:
        _build_on_workers(building, plan, todo, chosen)
    return root, plan


def _require_sufficient(experiment: Experiment, survey: Path, *, is_fatal: bool = True) -> None:
    """Raise DataError where the prepared survey lacks what the experiment asks for, before anything is trained.

    Where probes are not to be fitted now, `is_fatal` is false and a warning says it.
    """
    lacking: list[str] = importlib.import_module("sfnetlab.stages.sufficiency").lacking(experiment, survey)
    if lacking and is_fatal:
        raise DataError(f"{survey}: the survey lacks what the experiment asks for:\n  " + "\n  ".join(lacking))
    for sentence in lacking:
        log.warning("later stages will stop: %s", sentence)


def _check_survey(root: Path, plan: Sequence[Job], todo: Sequence[Job]) -> None:
    """Refuse a survey, prepared before, that lacks a column that the rest of the plan wants; raises DataError."""
    for job in plan:
        if job.stage == SURVEY and job not in todo and state_of(root, job).kind == "current":
            importlib.import_module(STAGES[job.stage].module).check(job.spec, job.directory(root))


def _build_on_workers(building: Building, plan: Sequence[Job], todo: Sequence[Job], chosen: Options) -> None:
    try:
        from sfnetlab import cluster
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed"):
            raise
        raise ConfigError("--workers and --cluster need Dask: uv sync --extra cluster") from None
    for job in todo:
        require_inputs(building.root, job, but=todo)
    finds_device = chosen.device in ("auto", "cuda")
    uses_device = frozenset(stage.name for stage in STAGES.values() if stage.uses_device and finds_device)
    is_split = not chosen.force and chosen.shard == WHOLE
    splits = frozenset(stage.name for stage in STAGES.values() if stage.splits and is_split)
    n_galaxies = _expected_galaxies(building.root, plan)
    memory = {stage: memory_bytes(stage, n_galaxies) for stage in STAGES}
    build_it = functools.partial(build_here, building)
    run = cluster.Run(building.root.resolve(), plan, build_it, uses_device, splits, memory)
    cluster.compute(run, todo, chosen.workers, chosen.cluster)


def build_here(building: Building, job: Job, shard: Shard = WHOLE) -> None:
    """Build one job on the device that this machine has for what `--device` asks.

    If a shard of it is named, build only that, and nothing if the survey is small or another experiment has the result.
    """
    if shard != WHOLE:
        (survey,) = (needed for needed in job.inputs.values() if needed.stage == SURVEY)
        is_small = (_n_galaxies(survey.directory(building.root)) or 0) < building.split_galaxies
        if is_small or find_shared(building.root, job, building.shared) is not None:
            return
        log.info("%s, shard %d/%d", job, *shard)
        building = replace(building, shard=shard)
    build_job(replace(building, device=runtime.resolve_device(building.device)), job)


def _build_in_turn(building: Building, todo: Sequence[Job], *, skip_busy: bool) -> None:
    """Build jobs one after another; those that others build, and those that need these, come later if `skip_busy`."""
    n, n_done, n_polls = len(todo), 0, 0
    while todo:
        postponed: list[Job] = []
        for job in todo:
            if skip_busy and _must_wait(building, job, postponed):
                postponed.append(job)
                continue
            log.info("[%d/%d] %s", n_done + 1, n, job)
            try:
                build_job(building, job)
                n_done += 1
            except BusyError:
                if not skip_busy:
                    raise
                postponed.append(job)
        n_polls = n_polls + 1 if len(postponed) == len(todo) else 0
        if n_polls:
            if n_polls % _POLLS_BETWEEN_LINES == 1:
                log.info("%d results are left, which others build or which need those: waiting", len(postponed))
            time.sleep(_POLL_S)
        todo = postponed


def require_inputs(root: Path, job: Job, but: Collection[Job] = ()) -> None:
    """Check that all inputs of a job are current, but for those that are still to be built.

    Raises
    ------
    ArtifactError
        If one is not.
    """
    for needed in job.inputs.values():
        if needed in but:
            continue
        state = state_of(root, needed)
        if state.kind != "current":
            raise ArtifactError(
                f"{needed.directory(root)}: {job} reads it, but it is {state.kind}"
                f"{_because(state.why)}; run `sfnetlab {needed.stage} CONFIG` first, or `sfnetlab run CONFIG`"
            )


def _must_wait(building: Building, job: Job, postponed: Sequence[Job]) -> bool:
    """Whether others build a job, or an input of it that is not current, or an input is postponed."""
    if builder_of(building.root, building.part(job)) is not None:
        return True
    return any(
        needed in postponed
        or (builder_of(building.root, needed) is not None and state_of(building.root, needed).kind != "current")
        for needed in job.inputs.values()
    )


def build_job(building: Building, job: Job) -> None:
    """Build one job, or one shard of it, from inputs that must be current; shards that were joined are removed.

    A result that another process made in the meantime stays, and one that another experiment has is linked.
    """
    root, shard = building.root, building.shard
    require_inputs(root, job)
    if shard == WHOLE and building.is_whole and not building.again:  # workers of an earlier run may have begun them
        for absent in missing_shards(root, job):
            build_job(replace(building, shard=absent), job)
    make: Build = importlib.import_module(STAGES[job.stage].module).build
    inputs = {role: needed.directory(root) for role, needed in job.inputs.items()}

    def make_in(work: Path) -> Metrics:
        shards = [] if building.again or shard != WHOLE else finished_shards(root, job)
        return make(
            job.spec, Task(inputs=inputs, work=work, device=building.device, job=job, shard=shard, shards=shards)
        )

    build(
        root,
        building.part(job),
        make_in,
        config_toml=building.config_toml,
        device=building.device,
        again=building.again,
        shared=building.shared,
    )
    if shard == WHOLE:
        remove_shards(root, job)
        link(root, job)
    if job.stage == SURVEY and building.experiment is not None:
        _require_sufficient(building.experiment, job.directory(root), is_fatal=building.is_whole)


def link(root: Path, job: Job) -> None:
    """Make the stage's link, unless something else has that name or the file system has no links."""
    name = STAGES[job.stage].link
    if name is None or ((root / name).exists() and not (root / name).is_symlink()):
        return
    try:
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(job.directory(root).relative_to(root), target_is_directory=True)
    except OSError as error:
        log.warning("%s (%s): no link, see %s", root / name, error.strerror, job.directory(root))


def _shown_directory(root: Path, job: Job) -> Path:
    """Where people are told to look for a result: through the stage's link, if there is one."""
    link = STAGES[job.stage].link
    directory = job.directory(root)
    return root / link if link and (root / link).resolve() == directory.resolve() else directory


def stage_main(stage: str, argv: Sequence[str] | None = None) -> int:
    """Run one stage for the command line or `uv run src/sfnetlab/stages/<stage>.py CONFIG`; return its exit status."""
    parser = argparse.ArgumentParser(prog=stage, description=STAGES[stage].summary)
    add_flags(parser, splits=STAGES[stage].splits)
    arguments = parsed(parser, argv)
    return exit_status(lambda: run(options(arguments), [stage]), arguments.verbosity)


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line; a help that nobody reads to its end is no error."""
    try:
        return parser.parse_args(argv)
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            runtime.leave_closed_pipe()


def exit_status(command: Callable[[], object], verbosity: int = 0, *, shares_cores: bool = True) -> int:
    """Run a command; 0: done or already current, 2: the user can fix it (one message), 1 with a traceback: a bug.

    Threads of one that `shares_cores` with other processes do not spin.
    """
    tell_repeats = runtime.configure_logging(verbosity)
    if shares_cores:
        runtime.let_threads_sleep()
    runtime.keep_freed_memory()
    try:
        command()
    except SfnetlabError as error:
        print(f"sfnetlab: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if (advice := advice_on(error)) is None:
            raise
        print(f"sfnetlab: {error.filename or error}: {advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sfnetlab: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    tell_repeats()
    return 0


@dataclass(frozen=True)
class Forecast:
    """What `status` is to say of the time left."""

    workers: tuple[int, ...] = ()
    """Numbers of workers."""
    like: Path | None = None
    """Folder of an experiment that is done, see `status.Like`."""


ONLY_SERIAL = Forecast()
"""One job after another, from what was measured in the folder itself."""


def describe_status(chosen: Options, forecast: Forecast = ONLY_SERIAL, *, as_json: bool = False) -> str:
    """Return a line for each job that says whether it is current, running, stale (and why) or missing."""
    experiment, root = chosen.load()
    plan = make_plan(experiment)
    like = _like(root, plan, forecast.like)
    found = status.statuses(root, plan, like)
    if as_json:
        return status.as_json(root, found, forecast.workers)
    return "\n".join([status.describe(found, workers=forecast.workers), *([str(like)] if like is not None else [])])


def _like(root: Path, plan: Sequence[Job], folder: Path | None) -> status.Like | None:
    if folder is None:
        return None
    if not any(folder.glob(f"*/[!.]*/{MANIFEST}")):
        raise ConfigError(f"--like: expected the folder of an experiment, such as {RESULTS}/demo, found {folder}")
    (survey,) = (job for job in plan if job.stage == SURVEY)
    n, n_there = _expected_galaxies(root, plan), _n_galaxies(survey.directory(folder))
    return status.Like(folder, n / n_there if n and n_there else None)


def _expected_galaxies(root: Path, plan: Sequence[Job]) -> int | None:
    """Return how many galaxies the survey has or is to have; None where it is not prepared and no setting says it."""
    (survey,) = (job for job in plan if job.stage == SURVEY)
    return _n_galaxies(survey.directory(root)) or survey.recipe["settings"]["survey"].get("n_galaxies")


def _n_galaxies(survey: Path) -> int | None:
    """Return how many galaxies a prepared survey has, or None if it is not prepared."""
    path = survey / "metrics.json"
    return json.loads(path.read_text())["n_galaxies"] if path.exists() else None


def watch_status(chosen: Options, forecast: Forecast) -> None:
    """Print which jobs run and what is left, again and again, on a terminal in the same place, until all is current."""
    experiment, root = chosen.load()
    plan = make_plan(experiment)
    is_terminal = sys.stdout.isatty()
    while True:
        found = status.statuses(root, plan, _like(root, plan, forecast.like))
        text = status.describe(found, only_running=True, workers=forecast.workers)
        if is_terminal:  # from the top, and clear what is left of the text before
            text = "\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[J"
        print(text, flush=True)
        if all(each.kind == "current" for each in found):
            return
        time.sleep(_WATCH_S if is_terminal else _WATCH_NO_TERMINAL_S)


def describe_results(root: Path, plan: Sequence[Job]) -> str:
    """Return what a run prints last: the comparison, how many claims hold, and where tables, claims and figures are."""
    parts = []
    for job in plan:
        directory = job.directory(root)
        if (directory / "comparison.txt").exists():
            parts.append((directory / "comparison.txt").read_text(encoding="utf-8"))
        if job.stage == "hold-claims":
            counts = json.loads((directory / "metrics.json").read_text())
            verdicts = ", ".join(f"{name.replace('_', ' ')}: {n}" for name, n in counts.items())
            parts.append(f"claims of the papers: {verdicts}; {directory / 'claims.md'}")
        if job.stage == "make-figures":
            parts.append(f"{len(list(directory.glob('*.png')))} figures: {_shown_directory(root, job)}")
        if job.stage == "build-atlas":
            parts.append(f"atlas: {_shown_directory(root, job) / 'index.html'}")
    return "\n".join(parts)


def _because(why: Sequence[str]) -> str:
    return f" ({'; '.join(why)})" if why else ""
