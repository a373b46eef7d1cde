"""One thread for every numeric library: tests are small, and results must not depend on the machine's cores."""

import gc
import logging
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# Machines are shared: how long one example takes says nothing. CI draws the same examples each time: it refuses a
# change for what that change broke. Other examples are met where people work.
settings.register_profile("shared-machine", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("shared-machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that test whole commands: they take longest, and the other worker would wait at the end."""
    items.sort(key=lambda item: len(item.path.parts))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking, again and again, at what the imports left: it stays to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _log_as_at_the_start() -> None:
    """Undo what commands of earlier tests and fixtures did to the lab's log: it would hide the log from `caplog`."""
    log = logging.getLogger("sfnetlab")
    log.handlers.clear()
    log.setLevel(logging.NOTSET)
    log.propagate = True
