"""The process that the lab runs in."""

import subprocess
import sys

import pytest

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
