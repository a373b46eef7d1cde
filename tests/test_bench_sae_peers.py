"""SAEs of other libraries against ours: a peer that a script stands in for, one that fails, and rows to decompose."""

import ast
import importlib.util
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from sfnetlab import bench
from sfnetlab.artifacts import write_dense_features, write_rows
from sfnetlab.bench import describe, sae_peers, sae_quality
from sfnetlab.bench.sae_peers import Peer, Plan
from sfnetlab.errors import DataError, SfnetlabError
from sfnetlab.training.sae import reference, trainer
from sfnetlab.training.sae.state import one_by_one

PLAN = Plan(n_train=300, n_test=100, d_in=8, n_latents=32, k=2, epochs=2, variants=("topk",), seeds=(0, 1))
SCRIPTS = sorted(sae_peers._SCRIPTS.glob("*.py"))

WRITES_CHECKPOINTS = """
import json, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file

path = Path(sys.argv[1])
job = json.loads(path.read_text())
for one in job["trainings"]:
    to = Path(one["to"])
    to.mkdir()
    rows = np.load(job["rows"])
    atoms = np.eye(one["n_latents"], rows.shape[1], dtype=np.float32)
    if one["rate_factor"] == 16:
        atoms += np.nan
    gain = 1 if one["rate_factor"] == 4 else 0.5
    b_dec = rows.mean(axis=0)
    b_enc = np.zeros(one["n_latents"], dtype=np.float32)
    state = dict(W_enc=gain * atoms.T.copy(), W_dec=atoms, b_enc=b_enc, b_dec=b_dec)
    save_file(state, to / "sae_weights.safetensors")
    config = {"architecture": "topk", "d_in": rows.shape[1], "d_sae": one["n_latents"], "k": one["k"]}
    (to / "cfg.json").write_text(json.dumps(config | {"normalize_activations": "none"}))
(path.parent / "seconds.json").write_text(json.dumps([0.5 for _ in job["trainings"]]))
"""
FAILS = "raise ModuleNotFoundError('no module named peer')"


@pytest.fixture
def peers(tmp_path, monkeypatch):
    """A function from the text of a script to a peer; `uv` runs scripts with the Python of the tests."""
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\nwhile [ "$1" != --script ]; do shift; done\nexec {sys.executable} "$2" "$3"\n')
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    # The plain step in the place of the kernels, which would have to be compiled.
    monkeypatch.setattr(trainer, "choose_steps", lambda states, *_: one_by_one(reference.make_step(states)))

    def make(text, name="fake"):
        script = tmp_path / f"{name}.py"
        script.write_text(text)
        return Peer(name=name, script=script)

    return make


def rows_of(*peers):
    return list(sae_peers.rows_of(sae_peers.planted_data(PLAN), PLAN, peers))


def test_each_recipe_of_a_peer_has_a_row_a_measure(peers):
    rows = rows_of(peers(WRITES_CHECKPOINTS))
    measures = ["FVU", "L0", "alive share", "rows/s", "MMCS", "rec90"]
    assert [row.unit for row in rows] == measures * 2
    assert all(row.reference is not None and row.ours is not None for row in rows)
    assert rows[3].reference == 2 * 300 / 0.5
    assert (rows[1].ours, rows[1].reference) == (pytest.approx(2, abs=0.1), pytest.approx(2, abs=0.3))
    assert rows[0].case.startswith("top-k, 300 planted rows x 8, 32 latents, k 2, 2 epochs, to fake as documented")
    assert "mean of 2 seeds (s.d. " in rows[0].case


def test_a_peer_is_tuned_to_the_rate_that_reconstructs_valid_rows_best_among_those_that_do_not_diverge(peers):
    documented, tuned = (row for row in rows_of(peers(WRITES_CHECKPOINTS)) if row.unit == "FVU")
    assert "tuned (4 x its rate, batch 64)" in tuned.case
    assert tuned.reference < documented.reference


def test_a_peer_that_fails_has_a_row_that_says_why_and_the_next_is_measured(peers):
    failed, *rows = rows_of(peers(FAILS, "broken"), peers(WRITES_CHECKPOINTS))
    assert failed.case == (
        "top-k, not against broken: it failed with status 1: ModuleNotFoundError: no module named peer"
    )
    assert (failed.reference, failed.ratio) == (None, None)
    assert "against the reference (none)" in describe(failed)
    assert len(rows) == 12


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("", "did not say how long it took"),
        (WRITES_CHECKPOINTS.replace('"topk"', '"another"'), "architecture = 'another' cannot be imported"),
        (WRITES_CHECKPOINTS.replace("atoms += np.nan", "pass").replace("b_dec = ", "b_dec = np.nan * "), "diverged"),
        ("import sys\nsys.exit('error: no index\\n  cause: no network\\nhint: none')", "error: no index; cause: no ne"),
    ],
)
def test_what_a_peer_did_not_write_is_said_in_one_line(peers, script, message):
    (row,) = rows_of(peers(script))
    assert message in row.case
    assert "\n" not in describe(row)


def test_without_uv_a_row_says_so(peers, monkeypatch):
    peer = peers(WRITES_CHECKPOINTS)
    monkeypatch.setenv("PATH", "")
    (row,) = rows_of(peer)
    assert row.case.endswith("uv, which fetches it, cannot be run (No such file or directory); install uv")


def test_scripts_of_peers_import_nothing_of_the_lab():
    assert len(SCRIPTS) == 3
    for script in SCRIPTS:
        names = [
            node.module if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(script.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        ]
        assert not [name for name in names if name.partition(".")[0] == "sfnetlab"]


def test_each_peer_has_a_script_that_says_what_it_needs_to_the_version():
    for peer in sae_peers.PEERS:
        assert "# dependencies = [" in peer.script.read_text()
        assert "==" in peer.script.read_text().partition("# dependencies = [")[2].partition("\n")[0]


def test_batches_of_peers_hold_each_row_once_before_any_comes_again():
    spec = importlib.util.spec_from_file_location("peer_job", sae_peers._SCRIPTS / "peer_job.py")
    peer_job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer_job)
    batches = peer_job.batches(torch.arange(7), 3, seed=0)
    seen = torch.cat([next(batches) for _ in range(7)]).tolist()
    assert [sorted(seen[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3
    assert seen[:7] != seen[7:14]


# --- rows that are given ----------------------------------------------------------------------------------------------


def test_rows_of_a_file_are_split_at_random_and_have_no_truth(tmp_path, peers):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((100, 8)))
    data = sae_peers.read_data(tmp_path / "x.npy")
    assert [len(part) for part in (data.train, data.valid, data.test)] == [70, 10, 20]
    assert sorted(np.concatenate((data.train, data.valid, data.test))) == list(range(100))
    rows = list(sae_peers.rows_of(data, PLAN, [peers(WRITES_CHECKPOINTS)]))
    assert [row.unit for row in rows] == ["FVU", "L0", "alive share", "rows/s"] * 2
    assert "70 rows x 8 of x.npy" in rows[0].case


def test_an_embedding_of_a_run_keeps_its_split(tmp_path):
    split = ["test", "train", "valid", "train"]
    write_rows(tmp_path, pd.DataFrame({"id_str": list("abcd"), "split": split}))
    write_dense_features(tmp_path, np.ones((4, 3), dtype=np.float32))
    data = sae_peers.read_data(tmp_path)
    assert (list(data.train), list(data.valid), list(data.test)) == ([1, 3], [2], [0])


@pytest.mark.parametrize(
    "x", [np.array([[1.0, np.nan]] * 10), np.ones(10), np.ones((10, 2), dtype=np.int64), np.full((10, 2), np.inf)]
)
def test_what_is_no_finite_table_is_refused(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match="expected finite embeddings"):
        sae_peers.read_data(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["absent.npy", "."])
def test_what_is_no_embedding_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="no such"):
        sae_peers.read_data(tmp_path / name)


@pytest.mark.parametrize("names", [[], ["sae"], ["sae-peers", "sae"]])
def test_embeddings_are_for_the_benchmark_of_peers_alone(tmp_path, names):
    with pytest.raises(SfnetlabError, match="--embeddings is for sae-peers alone"):
        list(bench.run(names, "cpu", tmp_path))


def test_measures_are_those_of_sae_quality():
    data = sae_peers.planted_data(PLAN)
    planted = sae_peers.make_planted_dictionary(n_train=300, n_test=150, d_in=8, n_atoms=32, n_active=2)
    sae = sae_quality.planted_sae(planted)
    np.testing.assert_array_equal(data.X[data.test], planted.X_test[:100])
    expected = sae_quality.reconstruction(sae, planted.X_train, planted.X_test[:100], ("topk",))
    measured = sae_peers._measured(sae_peers.Trained(sae, 5.0), data)
    assert measured == expected | {"rows/s": 5.0, "MMCS": pytest.approx(1), "rec90": 1}
