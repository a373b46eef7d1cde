"""Stage make-figures: every figure as PDF and PNG, each a query on the tables of the stages before it."""

from functools import partial

from sfnetlab import figures
from sfnetlab.figures.style import save_figure
from sfnetlab.jobs import Metrics, Task
from sfnetlab.plan import FiguresSpec
from sfnetlab.results import Results
from sfnetlab.runner import stage_main


def build(spec: FiguresSpec, task: Task) -> Metrics:  # noqa: ARG001
    """Draw what the results have data for; return how many figures that are."""
    results = Results.of_task(task)
    n_figures = 0
    for draw in figures.FIGURES:
        for name, drawn in draw(results):
            if isinstance(drawn, bytes):
                (task.work / f"{name}.gif").write_bytes(drawn)
            else:
                save_figure(drawn, task.work, name)
                n_figures += 1
    return {"n_figures": n_figures}


main = partial(stage_main, "make-figures")

if __name__ == "__main__":
    raise SystemExit(main())
