"""The machine that the lab runs on: device, threads, versions, memory, caches, logging and what is printed.

Only the functions that ask for a device, or for what it can do, import torch.
"""

import ctypes
import functools
import logging
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NoReturn

from sfnetlab.errors import SfnetlabError

log = logging.getLogger(__name__)

CLOSED_PIPE = 141
"""Exit status of a command whose reader is gone: what shells report of one that SIGPIPE ended."""


def resolve_device(name: str) -> str:
    """Return torch's name of the device that `--device` asks for. "auto" is CUDA, else MPS, else the CPU.

    Raises
    ------
    SfnetlabError
        If the name is unknown, or this machine has no such device.
    """
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = {
        "cpu": False,  # it has no index
        "cuda": n_cuda > (int(index) if index.isdigit() else 0) and (not index or index.isdigit()),
        "mps": torch.backends.mps.is_available() and not index,
    }
    if kind not in found:
        raise SfnetlabError(f"--device: expected auto, cpu, cuda, cuda:N or mps, got {name!r}")
    if not found[kind]:
        raise SfnetlabError(f"--device {name}: not found on this machine; use --device auto or --device cpu")
    return name


Precision = Literal["float32", "bfloat16"]
"""In what the trunk of a network multiplies while it is trained."""


def resolve_precision(asked: Literal["auto"] | Precision, device: str) -> Precision:
    """Return the precision that `training.precision` asks for on a device of torch.

    "auto" is bfloat16 where the hardware multiplies it: on GPUs of compute capability 8.0 and above, and on CPUs for
    which `multiplies_bfloat16` holds. On other devices it is float32.
    """
    if asked != "auto":
        return asked
    import torch

    kind = device.partition(":")[0]
    if kind == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    return "bfloat16" if kind == "cpu" and multiplies_bfloat16() else "float32"


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32; False where torch cannot tell."""
    import torch

    find = getattr(torch.cpu, "get_capabilities", None)
    found = find() if find else {}
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def visible_gpus() -> list[str]:
    """Return CUDA's names of the GPUs that this process may use, without loading torch."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name for name in told.split(",") if name]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def let_threads_sleep() -> None:
    """Make idle OpenMP threads sleep soon instead of spinning. Call this before torch is imported.

    If another process uses the same cores, spinning threads take time from threads that work: on 2 cores shared with
    one busy process, ResNet18 trained about half as fast with the default of GNU OpenMP. Without such a process,
    spinning made it no faster.

    This does not reach the barriers within oneDNN's kernel for the gradient of convolution weights in bfloat16
    (`jit_bf16:avx512_core_bf16,backward_weights`), which spin until the other thread comes. Beside busy processes they
    wait for the scheduler: on 2 cores shared with two such processes, 85 calls of it took 20 s, against 1.1 s of the
    float32 kernel, and ResNet18 trained on 14 to 74 images/s, against 89 in float32. One thread has nothing to wait
    for: 170 images/s in bfloat16. So processes that share cores should have fewer threads each, as workers do.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 2**30


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 1 GiB for the next batch. With another C library, nothing changes.

    By default, glibc maps each block above 32 MiB anew, and the kernel then clears every page of every layer's output
    again. When it keeps them, ResNet18 on 2 cores embeds a quarter more 144-pixel cutouts per second, and trains up to
    a tenth faster.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _KEPT_BYTES - 1)


def keep_caches() -> None:
    """Give libraries a temporary folder for what they keep between runs, if the user has no home to write to.

    Matplotlib, Numba, Astropy and the Hugging Face hub keep files below the home directory, which a container may lack.
    """
    home = Path(os.path.expanduser("~"))
    if not (home.is_absolute() and home.is_dir() and os.access(home, os.W_OK)):
        use_temporary_caches(f"no home directory that may be written to ({home})")


@functools.cache
def use_temporary_caches(why: str) -> Path | None:
    """Let libraries keep their caches in a temporary folder from now on, and warn; return it, None if there is none."""
    try:
        folder = _private_folder(Path(tempfile.gettempdir()) / f"sfnetlab-{os.getuid()}")
    except OSError as error:
        log.warning("%s, and no temporary folder (%s): nothing is kept for the next run", why, error)
        return None
    log.warning("%s: caches are in %s", why, folder)
    os.environ.setdefault("HOME", str(folder))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        if not os.access(os.environ.get(name, ""), os.W_OK):
            os.environ[name] = str(folder)
    for name, part in (("MPLCONFIGDIR", "matplotlib"), ("HF_HOME", "huggingface"), ("TORCH_HOME", "torch")):
        os.environ.setdefault(name, str(folder / part))
    return folder


def compiled(**options: Any) -> Callable[[Any], Any]:
    """Return what compiles a function by Numba and keeps the code for the next run: `numba.njit` with a cache.

    Numba looks for a place beside the function's file and below the home directory. If it may write to neither, the
    code goes into a temporary folder; if there is none, it is compiled in every run.
    """
    import numba

    def compile_it(function: Any) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:  # the only error of this type before anything is compiled
            folder = use_temporary_caches(f"Numba: {error}".splitlines()[0])
            if folder is None:
                return numba.njit(**options)(function)
            numba.config.CACHE_DIR = str(folder / "numba")  # pyrefly: ignore[missing-attribute]
            return numba.njit(cache=True, **options)(function)

    return compile_it


def _private_folder(folder: Path) -> Path:
    """Make a folder that nobody else may write to; if that name is another's, one of another name."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    is_own = status.st_uid == os.getuid() and not status.st_mode & 0o077
    return folder if is_own and not folder.is_symlink() else Path(tempfile.mkdtemp(prefix="sfnetlab-"))


_chosen_threads: list[int] = []
"""What `use_threads` was last told, if it was."""


def use_threads(n: int) -> None:
    """Make numeric libraries use n threads in this thread, and in those that are started or imported after it."""
    _chosen_threads[:] = [n]
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(n)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n)


def n_threads() -> int:
    """Return the number of threads that this process may use: what `use_threads` was told, or the number of cores."""
    if _chosen_threads:
        return _chosen_threads[0]
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def versions() -> dict[str, Any]:
    """Return the versions that a result depends on, for its manifest: Python, packages, the lab's git commit."""
    packages = ("sfnetlab", "numba", "numpy", "pandas", "scikit-learn", "scipy", "timm", "torch", "xgboost")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        **_git_state(),
    }


def _git_state() -> dict[str, Any]:
    """Return the commit of the lab's source and whether files differ from it; a commit of None if git knows none."""
    here = Path(__file__).parent
    try:
        commit, changes = (
            subprocess.run(["git", *command], cwd=here, capture_output=True, text=True, check=True, timeout=10).stdout
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "."))
        )
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None}  # installed from a wheel, or git is absent
    return {"git_commit": commit.strip(), "git_dirty": bool(changes.strip())}


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process so far.

    On Linux it is read from /proc, because `getrusage` counts the parent's memory too in a process that was just
    started.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM"):  # not every sandbox's kernel has it
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def cpu_seconds() -> float:
    """Return the seconds of all cores that this process, and those of its children that have ended, took so far."""
    return sum(os.times()[:4])


_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class _Once:
    """Lets a warning pass once, whatever numbers stand in its text, and any other message once to the letter."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.n_kept_back: Counter[str] = Counter()

    def __call__(self, record: logging.LogRecord) -> bool:
        is_warning = record.levelno >= logging.WARNING
        text = record.getMessage()
        key = _NUMBER.sub("#", text) if is_warning else text
        if key not in self.seen:
            self.seen.add(key)
            return True
        self.n_kept_back[key] += is_warning
        return False

    def tell(self) -> None:
        """Say how many warnings were kept back."""
        if n := self.n_kept_back.total():
            log.info("%d more warnings of %d kinds; -v shows each", n, len(+self.n_kept_back))


def configure_logging(verbosity: int, file: Path | None = None) -> Callable[[], None]:
    """Send the lab's log to stderr, or to a file; return what tells in the end which warnings were kept back.

    Parameters
    ----------
    verbosity
        -1 for warnings only, 0 for progress too, 1 for details too. Below 1 a warning comes once, though others of its
        kind follow.
    """
    level = {-1: logging.WARNING, 0: logging.INFO}.get(verbosity, logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr) if file is None else logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    once = _Once()
    if verbosity < 1:
        handler.addFilter(once)
    package = logging.getLogger("sfnetlab")
    package.handlers[:] = [handler]
    package.setLevel(level)
    package.propagate = False
    return once.tell


def say(text: str) -> None:
    """Print to stdout, with escapes for signs that it cannot show; end the process quietly where nobody reads it.

    Raises
    ------
    SystemExit
        With `CLOSED_PIPE`, if the reader is gone.
    """
    try:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(f"{text.encode(encoding, 'backslashreplace').decode(encoding)}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        leave_closed_pipe()


def leave_closed_pipe() -> NoReturn:
    """End the process with `CLOSED_PIPE`, and keep Python from writing into the pipe once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(CLOSED_PIPE)
