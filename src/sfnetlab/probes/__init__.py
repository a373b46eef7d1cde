"""The probes of feature tables: which there are, each in a file of its own, and how one is made by its name.

Settings import this module, so nothing heavy may: a probe's own module is imported when the probe is made.
To add a probe, write its file, with a class of the protocol `Probe` or `Classifier` of common.py, and its line in
`PROBES`.
"""

from collections.abc import Container
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from sfnetlab.metrics.tidy import HEAD

if TYPE_CHECKING:
    from sfnetlab.probes.common import Classifier, Probe

ProbeTask = Literal["values", "two_classes", "many_classes"]
"""What a probe predicts: catalogue columns, one class against another, or one of several classes."""


@dataclass(frozen=True)
class ProbeKind:
    """What settings, stages, tables and figures know of a probe; the rest is known to its own file."""

    name: str
    """What settings and the tables of results call it."""
    maker: str
    """Module in this package and class, "ridge.RidgeProbe"."""
    tasks: tuple[ProbeTask, ...]
    label: str
    """What figures call it."""
    short: str = ""
    """What figures call it where there is little room; empty: `label`."""
    on_all: bool = True
    """Whether it is fitted to all features of a table."""
    on_budgets: bool = True
    """Whether it is fitted to the few features of each budget. One of values is, whatever settings say of `kinds`, so
    that a budget means the same in every experiment."""
    needs: tuple[Literal["seed", "n_threads"], ...] = ()
    """What its class asks for; the others are deterministic."""

    @property
    def is_control(self) -> bool:
        """Whether it uses no features at all, and so stands once for all tables."""
        return not (self.on_all or self.on_budgets)

    @property
    def heading(self) -> str:
        """The shorter of its labels."""
        return self.short or self.label

    def make(self, *, seed: int, n_threads: int) -> Any:
        """Return the unfitted probe; its module is imported now."""
        module, _, cls = self.maker.partition(".")
        given = {"seed": seed, "n_threads": n_threads}
        return getattr(import_module(f"{__name__}.{module}"), cls)(**{name: given[name] for name in self.needs})


_CLASSES: tuple[ProbeTask, ...] = ("two_classes", "many_classes")

PROBES = (
    ProbeKind("linear", "linear.LinearProbe", ("values",), "linear"),
    ProbeKind("ridge", "ridge.RidgeProbe", ("values",), "ridge", on_budgets=False),
    ProbeKind("xgboost", "xgboost.XGBoostProbe", ("values",), "xgboost", on_budgets=False, needs=("seed", "n_threads")),
    ProbeKind("majority", "majority.MajorityClassifier", _CLASSES, "majority class", on_all=False, on_budgets=False),
    ProbeKind("logistic", "logistic.LogisticClassifier", _CLASSES, "logistic regression", short="logistic"),
    ProbeKind("linear_svm", "linear_svm.LinearSVM", ("two_classes",), "linear SVM", needs=("seed",)),
    ProbeKind("rbf_svm", "rbf_svm.RBFMachine", ("two_classes",), "RBF SVM", on_all=False, needs=("seed",)),
    ProbeKind("knn", "knn.NeighbourClassifier", ("many_classes",), "nearest neighbours", needs=("seed",)),
)
"""Every probe, in the one order in which tables and figures show them."""


def probes_of(task: ProbeTask) -> tuple[ProbeKind, ...]:
    """Return the probes that are fitted for a task, in the order of `PROBES`."""
    return tuple(kind for kind in PROBES if task in kind.tasks)


def names_of(task: ProbeTask) -> tuple[str, ...]:
    """Return the names of `probes_of` a task."""
    return tuple(kind.name for kind in probes_of(task))


def standing_for(task: ProbeTask) -> tuple[str, ...]:
    """Return the names of the probes on all features, from the first that may stand for its table.

    They are in the order of `PROBES`, but ridge goes before least squares, which fits the noise of the train rows where
    features are many.
    """
    names = [kind.name for kind in probes_of(task) if kind.on_all]
    return tuple(sorted(names, key=lambda name: name != "ridge"))


def shown_probe(present: Container[str]) -> str | None:
    """Return the probe whose predictions figures and the atlas show: the network's own head, else ridge, else the next.

    Parameters
    ----------
    present
        Names of the probes that a table has; None is returned where none is known.
    """
    return next((name for name in (HEAD, *standing_for("values")) if name in present), None)


def probe_kind(name: str, task: ProbeTask) -> ProbeKind:
    """Return the probe of that name.

    Raises
    ------
    ValueError
        If no probe of the task has that name.
    """
    for kind in probes_of(task):
        if kind.name == name:
            return kind
    raise ValueError(f"probe: expected one of {', '.join(map(repr, names_of(task)))}, got {name!r}")


def make_probe(name: str, *, seed: int = 0, n_threads: int = 1) -> "Probe":
    """Return the unfitted probe of values with that name; seed and threads are for those that need them."""
    probe: Probe = probe_kind(name, "values").make(seed=seed, n_threads=n_threads)
    return probe


def make_classifier(name: str, task: ProbeTask, *, seed: int = 0) -> "Classifier":
    """Return the unfitted classifier of that name for a task; the seed is for those that draw train rows."""
    classifier: Classifier = probe_kind(name, task).make(seed=seed, n_threads=1)
    return classifier
