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
