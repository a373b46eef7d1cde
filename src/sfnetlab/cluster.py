"""Jobs of a plan on workers: processes of this machine, or those of a Dask cluster that is there or is asked for.

This only translates a plan into Dask's futures. Which worker makes what and when, what happens when one dies, and
how workers are had from a queue is Dask's. Results travel through the results folder, which all workers must see.
"""

import asyncio
import functools
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import queue
import re
import shutil
import socket
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import tomli
from distributed import Client, Future, KilledWorker, LocalCluster, Security, WorkerPlugin, get_worker
from distributed.comm import connect
from distributed.system import MEMORY_LIMIT
from distributed.utils import LoopRunner

from sfnetlab import runtime, status
from sfnetlab.artifacts import find_manifest, state_of
from sfnetlab.errors import BusyError, ConfigError, SfnetlabError
from sfnetlab.files import advice_on
from sfnetlab.jobs import WHOLE, Job, Shard

log = logging.getLogger(__name__)

ROOM = "SFNETLAB"
"""Dask's resource of which a worker has one and a job takes one: a worker makes one job at a time, in all threads."""
GPU = "GPU"
"""Dask's resource that a worker with a GPU may have; if one has it, jobs that use a device go there."""
MEMORY = "MEMORY"
"""Dask's resource, in bytes: what a worker may use, and what a job of its stage is known to need."""
QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster"}
_LINE_S = 60.0
"""Without a terminal there is a line at most this often."""
_RECKON_S = 5.0
"""How often the time left is reckoned anew."""
_POLL_S = 1.0
_SEEN_LATE_S = 90.0
"""A network file system may show a new file to other machines that late."""
_CONNECT_S = 10.0


@dataclass(frozen=True)
class Run:
    """What workers are to do.

    Attributes
    ----------
    root
        The experiment's folder.
    plan
        All jobs of the experiment.
    build
        Builds a job, or a shard of it, in the process that calls it; pickled by its name.
    uses_device
        Names of the stages whose jobs run on a GPU where there is one; none where `--device` names one itself.
    splits
        Names of the stages whose jobs all workers share: a shard each, and then a job that joins them.
    memory
        Bytes that a job of each stage needs.
    """

    root: Path
    plan: Sequence[Job]
    build: Callable[[Job, Shard], None]
    uses_device: frozenset[str]
    splits: frozenset[str] = frozenset()
    memory: Mapping[str, int] = field(default_factory=dict)


def compute(run: Run, todo: Sequence[Job], workers: int | None, cluster: str | None) -> None:
    """Build jobs on workers, each as soon as its inputs are current; jobs that fail stop only what needs them.

    Parameters
    ----------
    todo
        Jobs of the plan in its order. Inputs that are not among them must be current.
    workers
        Number of processes on this machine. If None, `cluster` is used.
    cluster
        Address of a Dask scheduler, or the path of a TOML file that says how workers are had from a queue.

    Raises
    ------
    ConfigError
        If there is no such cluster, or a worker cannot work for this run.
    SfnetlabError
        The first error of a job that the user can mend, when all others are done.
    """
    token = f".token-{uuid.uuid4().hex}"
    run.root.mkdir(parents=True, exist_ok=True)
    (run.root / token).touch()
    lab = Lab(run, todo, Place.here(run.root / token), owns_workers=workers is not None)
    try:
        with _connected(workers, cluster, run.root) as client:
            _await_workers(client)
            _check(client, lab.place)
            client.register_plugin(lab, name=token)
            _gather(client, run, todo, token)
    finally:
        (run.root / token).unlink(missing_ok=True)


# --- what workers do --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """What a process must have in common with the one that gives it work."""

    token: Path
    """A file in the results folder."""
    folder: Path
    """Where relative paths of the configuration begin."""
    versions: Mapping[str, Any]

    @classmethod
    def here(cls, token: Path) -> "Place":
        return cls(token.resolve(), Path.cwd(), versions())

    def problem(self) -> str:
        """Return why this process cannot work, or nothing if it can."""
        ours = versions()
        if ours["source"] != self.versions["source"]:
            return (
                f"it has another version of sfnetlab, {ours['sfnetlab']} with other source than the "
                f"{self.versions['sfnetlab']} here; install the same for both"
            )
        if not self.token.exists():
            return (
                f"it does not see the results folder {self.token.parent}; choose one with --out that all machines "
                f"share by the same path"
            )
        if not self.folder.is_dir():
            return f"it does not see the folder {self.folder}, in which the command runs"
        return ""


@functools.cache
def versions() -> dict[str, Any]:
    """Return versions of Python and packages, and a hash of this package's source."""
    package = Path(__file__).parent
    source = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        source.update(str(path.relative_to(package)).encode() + path.read_bytes())
    found = {name: version for name, version in runtime.versions().items() if not name.startswith("git")}
    return found | {"source": source.hexdigest()}


class Lab(WorkerPlugin):
    """The jobs of a run in each worker process, those that start later too. Dask's own name for it is a plugin."""

    def __init__(self, run: Run, todo: Sequence[Job], place: Place, *, owns_workers: bool) -> None:
        self.run = run
        self.todo = list(todo)
        self.place = place
        self.owns_workers = owns_workers

    async def setup(self, worker: Any) -> None:  # pyrefly: ignore[missing-override-decorator]
        """Make a worker ready; one that cannot work for this run gets no room for jobs."""
        if problem := self.place.problem():
            log.error("%s", problem)
            return
        os.chdir(self.place.folder)
        runtime.let_threads_sleep()
        runtime.keep_freed_memory()
        runtime.use_threads(worker.state.nthreads)
        if self.owns_workers and self.run.uses_device:
            _choose_gpu(int(worker.name))
        name = re.sub(r"[^\w.-]+", "-", str(worker.name))
        self._log_into(self.run.root / "logs" / f"{name}.log")
        await worker.set_resources(**{ROOM: 1, MEMORY: _memory_of(worker)})

    def _log_into(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        runtime.configure_logging(0, path)
        if self.owns_workers:  # warnings of libraries as well, which the terminal would mix
            with path.open("a") as file:
                os.dup2(file.fileno(), sys.stderr.fileno())

    def make(self, place: int, shard: Shard) -> None:
        """Make a job, or a shard of it, or wait until somebody else has made it."""
        job = self.todo[place]
        # The number of threads is a setting of each thread, and Dask gives jobs one that it started before.
        runtime.use_threads(get_worker().state.nthreads)
        deadline = time.monotonic() + _SEEN_LATE_S
        while time.monotonic() < deadline and not _inputs_are_seen(self.run.root, job):
            time.sleep(_POLL_S)
        problem = self._attempt(job, shard)
        if problem is not None:  # not raised where it was caught: Dask sends what an error was raised after, if it can
            raise problem

    def _attempt(self, job: Job, shard: Shard) -> Exception | None:
        """Build a job, or wait for who builds it; return why this failed, in words that can be sent."""
        while True:
            try:
                if shard == WHOLE:
                    log.info("%s", job)
                self.run.build(job, shard)
                return None
            except BusyError as error:
                log.info("%s", error)
                time.sleep(_POLL_S)
            except SfnetlabError as error:
                return type(error)(f"{job} on {socket.gethostname()}: {error}")
            except Exception as error:  # noqa: BLE001
                if isinstance(error, OSError) and (advice := advice_on(error)):
                    return SfnetlabError(f"{job} on {socket.gethostname()}: {error.filename or error}: {advice}")
                return RuntimeError(f"{job} on {socket.gethostname()}:\n{traceback.format_exc()}")


def _memory_of(worker: Any) -> float:
    """Return the bytes that a worker may use: what it was started with as a resource or a limit, or all there is."""
    return worker.state.total_resources.get(MEMORY) or worker.memory_manager.memory_limit or MEMORY_LIMIT


def _inputs_are_seen(root: Path, job: Job) -> bool:
    return all(state_of(root, needed).kind == "current" for needed in job.inputs.values())


def _make(lab: str, place: int, shard: Shard, *_inputs: None) -> None:
    """What Dask runs: a job of the plugin of this name, or a shard of it, when the inputs are made."""
    plugin = get_worker().plugins[lab]
    assert isinstance(plugin, Lab)
    plugin.make(place, shard)


def _choose_gpu(number: int) -> None:
    """Let this process see one of the GPUs, by its number; call this before torch is imported."""
    visible = runtime.visible_gpus()
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)]


# --- clusters ---------------------------------------------------------------------------------------------------------


@contextmanager
def _connected(workers: int | None, cluster: str | None, root: Path) -> Iterator[Client]:
    """Yield the client of a cluster; one that was started here ends with the context."""
    if workers is not None:
        _keep_leaks_quiet()
        # Workers start processes: the mock survey is rendered by several. Large maps of files are no reason to die.
        dask.config.set({"distributed.worker.daemon": False})
        threads = max(1, runtime.n_threads() // workers)
        started = LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            memory_limit=0,
            resources={MEMORY: MEMORY_LIMIT // workers},
            dashboard_address=":0",
            host="127.0.0.1",
        )
        log.info("%d workers of %d threads; logs: %s", workers, threads, root / "logs")
    elif cluster is not None and (Path(cluster).suffix == ".toml" or Path(cluster).is_file()):
        started, n = open_queue(Path(cluster), root)
        started.scale(jobs=n)
    else:
        started = None
    client = None
    try:
        client = _client(cluster if started is None else started)
        if importlib.util.find_spec("bokeh") is not None:
            log.info("dashboard: %s", client.dashboard_link)
        yield client
    finally:
        # Running jobs cannot be asked to stop: if there are any, their workers are killed, which Dask would tell.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        if client is not None:
            client.close()
        if started is not None:
            started.close()


def _keep_leaks_quiet() -> None:
    """Start the process that removes semaphores of workers that were killed, such that it does not warn of each."""
    # It is told by the flags of the interpreter that it inherits; it may outlive our last line, and would follow it.
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    resource_tracker.ensure_running()
    sys.warnoptions.pop()


def _client(cluster: Any) -> Client:
    if not isinstance(cluster, str):
        return Client(cluster, timeout=_CONNECT_S, set_as_default=False)
    try:
        LoopRunner().run_sync(_shake_hands, cluster)
        return Client(cluster, timeout=_CONNECT_S, set_as_default=False)
    # What stands there may answer anything: "HTTP", read as a length, fits in no memory.
    except Exception as error:  # noqa: BLE001
        raise ConfigError(
            f"--cluster {cluster}: no Dask scheduler answers there ({type(error).__name__}); expected an address such "
            f"as tcp://host:8786, as `dask scheduler` prints it, or a TOML file"
        ) from None


async def _shake_hands(address: str) -> None:
    """Refuse what accepts connections and is no scheduler: Dask's client would wait for its answer without end."""
    connection = connect(address, timeout=_CONNECT_S, **Security().get_connection_args("client"))
    await (await asyncio.wait_for(connection, 2 * _CONNECT_S)).close()


def open_queue(path: Path, root: Path) -> tuple[Any, int]:
    """Return a Dask cluster whose workers are jobs of a queue, as a TOML file says, and how many it is to have.

    The file has `kind` ("slurm", "pbs" or "sge"), `workers`, the number of jobs in the queue, and a table
    `[options]` that is handed to dask_jobqueue's class: `cores`, `memory`, `queue`, `walltime`,
    `job_extra_directives` ... A worker makes one job of the plan at a time, in `cores` threads.

    Raises
    ------
    ConfigError
        If the file says anything else, or this machine cannot submit such jobs.
    """
    try:
        settings = tomli.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--cluster {path}: not a readable TOML file: {error}") from None
    kind, workers, options = (settings.pop(name, None) for name in ("kind", "workers", "options"))
    if settings:
        raise ConfigError(f"{path}: unknown key {next(iter(settings))}; expected kind, workers and [options]")
    if kind not in QUEUES:
        raise ConfigError(f"{path}: kind: expected one of {', '.join(QUEUES)}, found {kind!r}")
    if type(workers) is not int or workers < 1:
        raise ConfigError(f"{path}: workers: expected a number from 1, found {workers!r}")
    if not isinstance(options, dict) or not {"cores", "memory"} <= options.keys():
        raise ConfigError(
            f'{path}: expected a table [options] with cores and memory, such as cores = 8, memory = "32GB"'
        )
    try:
        import dask_jobqueue
    except ModuleNotFoundError:
        raise ConfigError("--cluster FILE needs dask-jobqueue: uv sync --extra cluster") from None
    before = ["export DASK_DISTRIBUTED__WORKER__DAEMON=False", *options.pop("job_script_prologue", ())]
    defaults = {
        "processes": 1,
        "log_directory": str((root / "logs").resolve()),
        "scheduler_options": {"dashboard_address": ":0"},  # any port that is free
    }
    cls = getattr(dask_jobqueue, QUEUES[kind])
    if shutil.which(cls.job_cls.submit_command.split()[0]) is None:
        raise ConfigError(f"--cluster {path}: this machine has no {cls.job_cls.submit_command} to submit jobs with")
    try:
        return cls(**defaults | options, job_script_prologue=before), workers
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise ConfigError(f"{path}: options: {QUEUES[kind]} of dask-jobqueue says: {error}") from None


def _await_workers(client: Client) -> None:
    waited = 0
    while not client.nthreads():
        if waited % int(_LINE_S) == 0:
            log.info("waiting for the first worker")
        time.sleep(1)
        waited += 1


def _check(client: Client, place: Place) -> None:
    """Refuse workers that cannot work for a run, and tell of other versions of packages."""
    # Of another version of sfnetlab, nothing is known but that it is a package.
    for worker, found in client.run(importlib.metadata.version, "sfnetlab", on_error="return").items():
        if isinstance(found, Exception):
            raise ConfigError(f"worker {worker}: sfnetlab is not installed there ({found}); install it on all machines")
    for worker, found in client.run(_look, place, on_error="return").items():
        if isinstance(found, Exception):
            raise ConfigError(
                f"worker {worker}: it has another version of sfnetlab ({found}); install the same for both"
            )
        problem, theirs = found
        if problem:
            raise ConfigError(f"worker {worker}: {problem}")
        others = [f"{name} {theirs[name]} for {ours}" for name, ours in place.versions.items() if theirs[name] != ours]
        if others:
            log.warning("worker %s: it has %s; results may differ in the last digits", worker, ", ".join(others))


def _look(place: Place) -> tuple[str, dict[str, Any]]:
    """What each worker is asked before it gets work."""
    return place.problem(), versions()


# --- the plan as futures ----------------------------------------------------------------------------------------------


def _gather(client: Client, run: Run, todo: Sequence[Job], lab: str) -> None:
    """Submit jobs, tell of each that is done, and raise the first error when all others are done."""
    offered = [worker["resources"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    _tell_of_memory(run, todo, offered)
    finished: queue.Queue[Job] = queue.Queue()
    futures: dict[Job, Future[None]] = {}
    n_workers = len(client.nthreads() if client.cluster is None else client.cluster.worker_spec)
    for place, job in enumerate(todo):
        needed = [futures[each] for each in job.inputs.values() if each in futures]
        resources = resources_of(job, run, offered)
        key = f"{job.stage}-{lab}-{place}"  # Dask expects of keys that begin alike that they take as long
        submit = functools.partial(client.submit, _make, lab, place, priority=-place, resources=resources)
        if job.stage in run.splits and n_workers > 1:
            shards = [Shard(index, n_workers) for index in range(n_workers)]
            needed += [submit(shard, *needed, key=f"shard_of_{key}-{shard.index}") for shard in shards]
        futures[job] = submit(WHOLE, *needed, key=key)
    for job, future in futures.items():
        future.add_done_callback(functools.partial(_put, finished, job))
    progress = _Progress(run, client, todo)
    errors: dict[Job, BaseException] = {}
    lost = 0
    while progress.undone:
        try:
            job = finished.get(timeout=_LINE_S)
        except queue.Empty:
            progress.tell()
            continue
        progress.undone.pop(job)
        future = futures[job]
        if future.status == "finished":
            progress.tell(job)
        elif all(futures[needed].status == "finished" for needed in job.inputs.values() if needed in futures):
            errors[job] = _error_of(job, future)
            log.error("%s failed; what does not need it goes on", job)
        else:
            lost += 1
    if errors:
        first, *others = errors.values()
        if not isinstance(first, SfnetlabError):
            raise first
        more = [f"{len(others)} other jobs failed, see above"] if others else []
        more += [f"{lost} jobs that need it were not made"] if lost else []
        raise type(first)("; ".join([str(first), *more]))


def resources_of(job: Job, run: Run, offered: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the resources that a worker must have free to take a job, given those that each worker offers.

    Of memory that is at most what the largest worker has: a job that needs more goes there.
    """
    largest = max(worker.get(MEMORY, 0) for worker in offered)
    with_gpu = job.stage in run.uses_device and any(GPU in worker for worker in offered)
    return {ROOM: 1, MEMORY: min(run.memory.get(job.stage, 0), largest)} | ({GPU: 1} if with_gpu else {})


def _tell_of_memory(run: Run, todo: Sequence[Job], offered: Sequence[Mapping[str, float]]) -> None:
    largest = max(worker.get(MEMORY, 0) for worker in offered)
    stages = dict.fromkeys(job.stage for job in todo if run.memory.get(job.stage, 0) > largest)
    if stages:
        log.warning(
            "memory may run out: the largest worker has %.1f GB, and jobs are known to need more: %s; take fewer or "
            "larger workers",
            largest / 1e9,
            ", ".join(f"{stage} {run.memory[stage] / 1e9:.1f} GB" for stage in stages),
        )


def _put(finished: "queue.Queue[Job]", job: Job, _: "Future[None]") -> None:
    finished.put(job)


def _error_of(job: Job, future: "Future[None]") -> BaseException:
    """Return why a job is not done, as a user can read it where it is no bug."""
    if future.status == "cancelled":
        return SfnetlabError(f"{job}: the Dask scheduler is gone; the same command goes on where it was")
    error = future.exception()
    if isinstance(error, KilledWorker):
        return SfnetlabError(
            f"{job}: {error.allowed_failures + 1} workers died while they made it, perhaps because memory ran out "
            f"(last: {error.last_worker.name}); what it had done is kept"
        )
    return error if error is not None else RuntimeError(f"{job}: {future.status}")


class _Progress:
    """Tells how far a plan is: for each job on a terminal, else a line a minute."""

    def __init__(self, run: Run, client: Client, todo: Sequence[Job]) -> None:
        self.run = run
        self.client = client
        self.n = len(todo)
        self.undone = dict.fromkeys(todo)
        """Jobs in the order of the plan."""
        self.told_at = self.reckoned_at = 0.0
        self.n_workers = 1
        self.left = ""

    def tell(self, job: Job | None = None) -> None:
        """Write a line about the plan, and about a job that was just done."""
        now = time.monotonic()
        if self.undone and not sys.stderr.isatty() and now - self.told_at < _LINE_S:
            return
        self.told_at = now
        if now - self.reckoned_at > _RECKON_S:
            self._reckon()
            self.reckoned_at = time.monotonic()
        ready = sum(all(each not in self.undone for each in job.inputs.values()) for job in self.undone)
        running = min(ready, self.n_workers)
        manifest = find_manifest(job.directory(self.run.root)) if job is not None else None
        done = f"[{self.n - len(self.undone)}/{self.n}] " + (
            f"{job} in {manifest['wall_s']:.0f} s; " if manifest else ""
        )
        log.info("%s%d running, %d waiting; %s", done, running, len(self.undone) - running, self.left)

    def _reckon(self) -> None:
        self.n_workers = max(1, len(self.client.nthreads()))
        expected = status.expected_seconds(self.run.root, self.run.plan)
        known = {job: expected[job] or 0.0 for job in self.undone}
        is_all = all(expected[job] is not None for job in self.undone)
        seconds = status.makespan(known, self.n_workers)
        self.left = (
            ("" if is_all else "more than ") + status.left(seconds) if seconds or is_all else "no times known yet"
        )
