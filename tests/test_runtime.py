"""The process that the lab runs in."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sfnetlab import runtime

_FREES_HALF_A_GIB = """
import os
import numpy as np
from pathlib import Path
from sfnetlab import runtime
{call}
block = np.ones(2**26)
del block
print(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_kept_for_the_next_batch():
    resident_mib = {
        call: float(subprocess.check_output([sys.executable, "-c", _FREES_HALF_A_GIB.format(call=call)]))
        for call in ("", "runtime.keep_freed_memory()")
    }
    assert resident_mib["runtime.keep_freed_memory()"] > resident_mib[""] + 500


def test_the_peak_of_a_process_is_not_that_of_the_one_that_started_it():
    peak = "from sfnetlab import runtime; print(runtime.peak_memory_bytes())"
    starts_it_with_a_gib = f"""
import subprocess, sys
import numpy as np
block = np.ones(2**27)
print(subprocess.check_output([sys.executable, "-c", {peak!r}], text=True))
"""
    assert 2**20 < int(subprocess.check_output([sys.executable, "-c", starts_it_with_a_gib])) < 2**29


# --- caches -----------------------------------------------------------------------------------------------------------

_DESCENDS = """
import numpy as np
from sfnetlab.metrics.disentanglement import _descend
print(_descend(np.eye(2), np.ones(2), np.zeros(2), 0.1, 1e-6, 10))
"""


def run_without_places(code: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code with a copy of the package that nobody may write to, as a user without a home."""
    package = tmp_path / "site/sfnetlab"
    shutil.copytree(Path(runtime.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    given = {name: text for name, text in os.environ.items() if name not in ("HOME", "NUMBA_CACHE_DIR")}
    given |= {
        "PYTHONPATH": str(tmp_path / "site"),
        "HOME": str(tmp_path / "site/nobody"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", code]
    if os.getuid() == 0:
        drop = "--bounding-set=-dac_override,-dac_read_search,-fowner"
        command = ["setpriv", drop, "--inh-caps=-all", *command]
    folders = [path for path in (package.parent, *package.rglob("*")) if path.is_dir()] + [package]
    for folder in folders:
        folder.chmod(0o555)
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env=given | environment, cwd=tmp_path
        )
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.skipif(shutil.which("setpriv") is None and os.getuid() == 0, reason="root may write everywhere")
def test_compiled_code_goes_into_a_temporary_folder_where_there_is_no_other_place(tmp_path):
    (tmp_path / "tmp").mkdir()
    done = run_without_places(_DESCENDS, tmp_path, TMPDIR=str(tmp_path / "tmp"))
    folder = tmp_path / "tmp" / f"sfnetlab-{os.getuid()}"
    assert done.stdout.strip() == "True"
    assert list((folder / "numba").rglob("*_descend*.nbi"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert done.stderr.count("caches are in") == 1


def test_a_home_that_may_not_be_written_to_is_told_once(tmp_path, monkeypatch, caplog):
    runtime.use_temporary_caches.cache_clear()
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(runtime.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    runtime.keep_caches()
    runtime.keep_caches()
    assert caplog.text.count("no home directory that may be written to") == 1
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / f"sfnetlab-{os.getuid()}")


def test_a_temporary_folder_of_somebody_else_is_not_taken(tmp_path, monkeypatch):
    runtime.use_temporary_caches.cache_clear()
    monkeypatch.setattr(runtime.tempfile, "tempdir", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "HF_HOME", "TORCH_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    theirs = tmp_path / f"sfnetlab-{os.getuid()}"
    theirs.mkdir()
    theirs.chmod(0o777)
    folder = runtime.use_temporary_caches("a test")
    assert folder is not None
    assert folder != theirs
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_without_any_temporary_folder_nothing_is_kept(monkeypatch, caplog):
    runtime.use_temporary_caches.cache_clear()

    def none_usable() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(runtime.tempfile, "gettempdir", none_usable)
    assert runtime.use_temporary_caches("a test") is None
    assert "nothing is kept for the next run" in caplog.text


# --- printing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["schema", "--help", "run --help"])
def test_a_reader_that_is_gone_ends_a_command_quietly(command):
    """As with `sfnetlab schema | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "sfnetlab", *command.split()],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.returncode in (0, runtime.CLOSED_PIPE)
    assert done.stderr == ""


def test_signs_that_the_terminal_lacks_are_escaped():
    code = "from sfnetlab.runtime import say; say('R² ≥ 1')"
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    assert subprocess.check_output([sys.executable, "-c", code], env=ascii_only) == b"R\\xb2 \\u2265 1\n"


# --- precision --------------------------------------------------------------------------------------------------------


def test_without_a_word_from_torch_the_processor_does_not_multiply_bfloat16(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not runtime.multiplies_bfloat16()


@pytest.mark.parametrize(
    ("found", "expected"),
    [({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")],
)
def test_the_precision_of_a_cpu_is_what_it_multiplies(found, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert runtime.resolve_precision("auto", "cpu") == expected


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((8, 9), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_the_precision_of_a_gpu_is_bfloat16_from_compute_capability_8(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert runtime.resolve_precision("auto", "cuda:1") == expected


def test_precision_on_other_devices_is_float32():
    assert runtime.resolve_precision("auto", "mps") == "float32"


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_is_taken_whatever_the_processor(asked, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert runtime.resolve_precision(asked, "cpu") == asked
