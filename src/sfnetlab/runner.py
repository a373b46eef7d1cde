"""Runs the jobs of a plan: skips what is current, builds what is not, explains what is missing.

Stage modules are imported by name when one of their jobs is built, so that nothing heavy loads before.
"""

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfnetlab import config, runtime
from sfnetlab.artifacts import SAME_CONTENT, State, build, state_of, take_over
from sfnetlab.errors import ArtifactError, DataError, SfnetlabError
from sfnetlab.files import advice_on, path_argument
from sfnetlab.jobs import WHOLE, Job, Metrics, Shard, Task
from sfnetlab.plan import STAGES, make_plan
from sfnetlab.schema import Experiment
from sfnetlab.shards import finished_shards, parse_shard, remove_shards, shard_job

log = logging.getLogger(__name__)

Build = Callable[[Any, Task], Metrics]
SURVEY, PROBED = "prepare-survey", "fit-probes"
"""The stage whose result is held against all that the experiment asks for, and the one that asks for most of it."""


@dataclass(frozen=True)
class Options:
    """The flags that `run` and every stage share."""

    config: Path
    out: Path | None
    overrides: tuple[str, ...]
    force: bool
    device: str
    shard: Shard = WHOLE

    def load(self) -> tuple[Experiment, Path]:
        experiment = config.load(self.config, self.overrides)
        return experiment, self.out or Path("results") / experiment.name


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
    )


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
    _check_survey(root, plan, todo)
    runtime.keep_caches()
    device = runtime.resolve_device(chosen.device)
    resolved = config.as_toml(experiment)
    (survey,) = (job for job in plan if job.stage == SURVEY)
    is_whole = {SURVEY, PROBED} <= {*stages}
    if is_whole and survey not in todo:
        _require_sufficient(experiment, survey.directory(root))
    for number, job in enumerate(todo, 1):
        if not chosen.force and state_of(root, job) == SAME_CONTENT:
            log.info("[%d/%d] %s is current: %s", number, len(todo), job, SAME_CONTENT.why[0])
            take_over(root, job)
            continue
        log.info("[%d/%d] %s", number, len(todo), job)
        shards = [] if chosen.force or chosen.shard != WHOLE else finished_shards(root, job)
        build_job(root, job, config_toml=resolved, device=device, shard=chosen.shard, shards=shards)
        if job.stage == SURVEY:
            _require_sufficient(experiment, survey.directory(root), is_fatal=is_whole)
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
        if job.stage == "prepare-survey" and job not in todo and state_of(root, job).kind == "current":
            importlib.import_module(STAGES[job.stage].module).check(job.spec, job.directory(root))


def build_job(
    root: Path,
    job: Job,
    *,
    config_toml: str,
    device: str,
    shard: Shard = WHOLE,
    shards: Sequence[Path] = (),
) -> None:
    """Build one job, or one shard of it, from inputs that must be current; shards that were joined are removed."""
    for needed in job.inputs.values():
        state = state_of(root, needed)
        if state.kind != "current":
            raise ArtifactError(
                f"{needed.directory(root)}: {job} reads it, but it is {state.kind}"
                f"{_because(state.why)}; run `sfnetlab {needed.stage} CONFIG` first, or `sfnetlab run CONFIG`"
            )
    make: Build = importlib.import_module(STAGES[job.stage].module).build
    inputs = {role: needed.directory(root) for role, needed in job.inputs.items()}
    build(
        root,
        job if shard == WHOLE else shard_job(job, shard),
        lambda work: make(job.spec, Task(inputs=inputs, work=work, device=device, job=job, shard=shard, shards=shards)),
        config_toml=config_toml,
        device=device,
    )
    if shard == WHOLE:
        remove_shards(root, job)
        link(root, job)


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


def describe_status(chosen: Options) -> str:
    """Return a line for each job that says whether it is current, stale (and why) or missing."""
    experiment, root = chosen.load()
    lines = []
    known: dict[str, State] = {}
    for job in make_plan(experiment):
        state = state_of(root, job, known)
        lines.append(f"{state.kind:8} {job}{_because(state.why)}")
    return "\n".join(lines)


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
