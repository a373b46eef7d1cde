"""Stage fit-baselines: feature tables that need no network of ours: decompositions, photometry, nothing."""

from functools import partial

from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.decompositions import BaselineSpec
from sfnetlab.runner import stage_main


def build(spec: BaselineSpec, task: Task) -> Metrics:
    """Write the feature table of a baseline."""
    return spec.baseline.build(spec.target, task)


main = partial(stage_main, "fit-baselines")

if __name__ == "__main__":
    raise SystemExit(main())
