"""Independent components: planted sources come back, and features are what the reader reads."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.artifacts import read_features, write_dense_features, write_rows
from sfnetlab.errors import DataError
from sfnetlab.jobs import Job, TableSpec, Task
from sfnetlab.methods import reader_of
from sfnetlab.methods.decompositions import BaselineSpec
from sfnetlab.methods.ica import ICA
from sfnetlab.stages import fit_baselines

N, D, N_SOURCES = 2000, 12, 4


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Skewed independent sources (n, 4), and what a random matrix and an offset make of them (n, 12)."""
    rng = np.random.default_rng(0)
    sources = rng.exponential(size=(N, N_SOURCES))
    return sources, sources @ rng.standard_normal((N_SOURCES, D)) + 3.0


def settings(n_components: int, **more: int) -> ICA:
    return ICA(name="ica", on="dense", n_components=n_components, **more)


def test_planted_sources_are_found_with_their_sign(planted):
    sources, x = planted
    model = settings(N_SOURCES).fit(x, None).model
    found = (x - model["mean"]) @ model["rotations"]
    correlation = np.corrcoef(found.T, sources.T)[:N_SOURCES, N_SOURCES:]
    assert (correlation.max(axis=1) > 0.99).all()
    assert sorted(correlation.argmax(axis=1)) == list(range(N_SOURCES))


def test_components_have_unit_variance_and_fall_by_what_they_make_of_the_embedding(planted):
    model = settings(N_SOURCES).fit(planted[1], None).model
    scores = (planted[1] - model["mean"]) @ model["rotations"]
    np.testing.assert_allclose(scores.std(axis=0), 1, rtol=1e-3)
    lengths = np.linalg.norm(model["components"], axis=1)
    assert (np.diff(lengths) <= 0).all()


def test_more_components_than_dimensions_are_refused(planted):
    with pytest.raises(DataError, match=r"'ica': n_components must be at most 12 \(2000 train rows .* got 13"):
        settings(13).fit(planted[1], None)


def test_a_fit_that_has_not_converged_is_said_and_recorded(planted, caplog):
    metrics = settings(N_SOURCES, max_iterations=1).fit(planted[1], None).metrics
    assert metrics["has_converged"] == 0
    assert "has not converged after 1 steps" in caplog.text


def test_the_stage_writes_what_the_reader_reads_and_makes_again(planted, tmp_path):
    x = planted[1].astype(np.float32)
    split = np.tile(["train", "train", "valid", "test"], N // 4)
    rows = pd.DataFrame({"id_str": [str(i) for i in range(N)], "split": split})
    for name in ("embedding", "work"):
        (tmp_path / name).mkdir()
    write_rows(tmp_path / "embedding", rows)
    write_dense_features(tmp_path / "embedding", x)
    job = Job(stage="", version=1, name="", spec=None, inputs={})
    task = Task(inputs={"embedding": tmp_path / "embedding"}, work=tmp_path / "work", device="cpu", job=job)
    fit_baselines.build(BaselineSpec(baseline=settings(N_SOURCES)), task)
    reader = reader_of(TableSpec(features="ica", kind="ica", k=None, seed=None), {"features": tmp_path / "work"})
    scores = read_features(tmp_path / "work").values
    np.testing.assert_allclose(scores, reader.encode(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(reader.decode(scores), x, atol=1e-3)
