"""The stage that draws: a loop over the registered figures, which need no change for a new one."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sfnetlab import figures
from sfnetlab.figures.style import paper_figure
from sfnetlab.jobs import Job, Task
from sfnetlab.plan import ComparisonSpec, FiguresSpec
from sfnetlab.settings import Target
from sfnetlab.stages import make_figures


@pytest.fixture
def task(tmp_path):
    """A task whose only input is a comparison of one number."""
    compared, work = tmp_path / "comparison", tmp_path / "figures"
    compared.mkdir()
    work.mkdir()
    pd.DataFrame({"features": ["toy"], "value": [0.25]}).to_parquet(compared / "metrics.parquet", index=False)
    spec = ComparisonSpec(targets={"mass": Target(columns=("lgm_tot_p50",))}, classes={})
    comparison = Job("fit-probes", 1, "comparison", spec, {})
    job = Job("make-figures", 1, "figures", FiguresSpec(), {"comparison": comparison})
    return Task(inputs={"comparison": compared}, work=work, device="cpu", job=job)


def names_in(task):
    return sorted(path.name for path in task.work.iterdir())


def test_a_new_figure_is_one_function_and_one_line(task, monkeypatch):
    drawn: list[float] = []

    @paper_figure
    def plot_toy(values):
        fig = Figure()
        (line,) = fig.subplots().plot(values)
        drawn.extend(np.asarray(line.get_ydata()))
        return fig

    def draw(findings):
        for name in findings.targets:
            yield f"toy-{name}", plot_toy(findings.comparison()["value"])

    monkeypatch.setattr(figures, "FIGURES", (draw,))
    assert make_figures.build(FiguresSpec(), task) == {"n_figures": 1}
    assert names_in(task) == ["toy-mass.pdf", "toy-mass.png"]
    assert drawn == [0.25]


def test_an_animation_is_written_as_it_is_and_is_no_figure(task, monkeypatch):
    monkeypatch.setattr(figures, "FIGURES", (lambda findings: iter([("walk", b"GIF89a")]),))
    assert make_figures.build(FiguresSpec(), task) == {"n_figures": 0}
    assert (task.work / "walk.gif").read_bytes() == b"GIF89a"
