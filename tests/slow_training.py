"""What a worker of Dask loads first in tests that kill it: a checkpoint after every step, and slow epochs."""

import time

from sfnetlab.jobs import Task
from sfnetlab.training import loop

if loop.CHECKPOINT_INTERVAL_S:  # Dask loads it twice
    _report = Task.report

    def _report_slowly(task: Task, history: object) -> None:
        _report(task, history)  # type: ignore[arg-type]
        time.sleep(0.5)

    loop.CHECKPOINT_INTERVAL_S = 0.0
    Task.report = _report_slowly  # type: ignore[method-assign]
