"""The registry of probes: one line a probe, in the order of every table, and nothing heavy until one is made."""

import subprocess
import sys

import numpy as np
import pytest

from sfnetlab import config, probes, report
from sfnetlab.errors import ConfigError
from sfnetlab.probes import PROBES, ProbeKind, shown_probe, standing_for

EXPERIMENT = """
name = "x"
[targets.t]
columns = ["oh_p50"]
[[features]]
kind = "mean"
[probes]
kinds = ["linear", "ridg"]
classifiers = ["knn"]
"""


def test_names_are_unique():
    names = [kind.name for kind in PROBES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", PROBES, ids=lambda kind: kind.name)
def test_every_probe_is_made_by_its_name_and_keeps_to_its_protocol(kind):
    X = np.random.default_rng(0).normal(size=(40, 3))
    made = kind.make(seed=0, n_threads=1)
    if kind.tasks == ("values",):
        assert made.fit(X, X[:, :2], X, X[:, :2]).predict(X[:5]).shape == (5, 2)
    else:
        y = (X[:, 0] > 0).astype(int)
        assert made.fit(X, y, X, y).score(X[:5]).shape == (5,)


def test_the_settings_import_no_probe_and_no_numpy():
    code = "import sys, sfnetlab.schema; print({'numpy', 'sfnetlab.probes.common'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_settings_know_the_probes_of_the_registry_by_name(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(EXPERIMENT)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert str(caught.value).splitlines() == [
        f"{path}:8: probes.kinds[1]: expected one of 'linear', 'ridge', 'xgboost', got 'ridg'",
        f"{path}:9: probes.classifiers[0]: expected one of 'majority', 'logistic', 'linear_svm', 'rbf_svm', got 'knn'",
    ]


def test_a_network_is_shown_by_its_head_and_other_features_by_ridge_if_it_is_there():
    assert shown_probe({"linear", "ridge", "head"}) == "head"
    assert shown_probe({"xgboost", "ridge", "linear"}) == "ridge"
    assert shown_probe({"xgboost", "linear"}) == "linear"
    assert shown_probe({"xgboost"}) == "xgboost"
    assert shown_probe(set()) is None
    assert standing_for("two_classes") == ("logistic", "linear_svm")


class Halves:
    """Names class 1 where the first feature is positive."""

    def fit(self, X, y, X_valid, y_valid):
        return self

    def score(self, X):
        return np.asarray(X)[:, 0]


def test_a_new_probe_is_one_line_of_the_registry(monkeypatch, tmp_path):
    module = type(sys)("sfnetlab.probes.halves")
    module.Halves = Halves
    monkeypatch.setitem(sys.modules, "sfnetlab.probes.halves", module)
    line = ProbeKind("halves", "halves.Halves", ("two_classes",), "halves")
    monkeypatch.setattr(probes, "PROBES", (*PROBES, line))
    classifier = probes.make_classifier("halves", "two_classes")
    assert (classifier.score(np.array([[-1.0], [2.0]])) > 0).tolist() == [False, True]
    assert report.probes_of("two_classes")[-1].label == "halves"
    assert probes.standing_for("two_classes")[-1] == "halves"
