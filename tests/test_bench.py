"""The benchmark command and its parts: rows with a ratio, a fair reference, unknown names refused."""

import json
import os
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from sfnetlab import bench, cli
from sfnetlab.bench import Row, compare, describe, sae, sae_quality
from sfnetlab.bench.plain_sae import make_plain_step
from sfnetlab.planted import make_planted_dictionary
from sfnetlab.training.sae import reference, trainer
from sfnetlab.training.sae.state import Rates, one_by_one

TINY = {"d_in": 16, "n_latents": 64, "k": 4, "batch_size": 32}
TINY_DATA = {"n_train": 600, "d_in": 32, "n_atoms": 64, "n_active": 3}


@pytest.fixture
def without_kernels(monkeypatch):
    """The plain step in the place of the kernels, which would have to be compiled."""
    for module in (sae, trainer):
        monkeypatch.setattr(module, "choose_steps", lambda states, *_: one_by_one(reference.make_step(states)))
    monkeypatch.setattr(sae, "N_ROWS", 1000)
    monkeypatch.setattr(sae, "_WINDOW_STEPS", (1, 2))
    monkeypatch.setattr(sae, "_CALIBRATION_S", 0.001)
    monkeypatch.setattr(sae_quality, "N_TEST", 300)
    monkeypatch.setattr(sae_quality, "N_VALID", 100)


def test_a_benchmark_prints_and_writes_its_ratio(tmp_path, capsys):
    assert cli.main(["bench", "selection", "--device", "cpu", "--json", str(tmp_path / "rows.json")]) == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert set(row) == {field.name for field in fields(Row)}
    assert row["ratio"] > 0
    assert row["bound_share"] is None
    assert "x the reference" in capsys.readouterr().out


def test_an_unknown_benchmark_is_refused_with_the_known(capsys):
    assert cli.main(["bench", "warp", "--device", "cpu"]) == 2
    assert "no benchmark warp; known: mock, survey" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "sleeps"), [(["bench", "warp"], False), (["status", "absent.toml"], True)])
def test_idle_threads_sleep_soon_but_in_benchmarks(command, sleeps, monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "")
    monkeypatch.delenv("GOMP_SPINCOUNT")  # puts back what was there, if anything, at the end
    assert cli.main(command) == 2
    assert ("GOMP_SPINCOUNT" in os.environ) == sleeps


def test_what_takes_much_memory_runs_only_by_its_name(monkeypatch):
    done = []
    for name in bench.BENCHMARKS:
        monkeypatch.setitem(bench.BENCHMARKS, name, lambda device, name=name: iter([done.append(name)]))
    list(bench.run([], "cpu"))
    assert set(bench.BENCHMARKS) - set(done) == {
        "claims-null", "coverage", "sae-quality-large", "sae-peers", "scale", "scale-large", "scale-million",
        "speedrun", "speedrun-small",
    }  # fmt: skip
    list(bench.run(["sae-quality-large"], "cpu"))
    assert done[-1] == "sae-quality-large"


def test_ratio_and_shares_of_the_bound_are_those_of_the_times(monkeypatch):
    now = 0.0

    def take(seconds):
        nonlocal now
        now += seconds

    monkeypatch.setattr(compare.time, "perf_counter", lambda: now)
    monkeypatch.setattr(compare.time, "sleep", take)
    row = compare.compare(
        "x",
        "y",
        "calls/s",
        1,
        lambda: take(0.01),
        lambda: take(0.04),
        "cpu",
        bound=lambda: 200.0,
    )
    assert row.ratio == pytest.approx(4)
    assert row.bound_share == pytest.approx(0.5)
    assert row.reference_bound_share == pytest.approx(0.125)
    assert "of the bound" in describe(row)
    assert "1 MB (2)" in describe(replace(row, peak_mb=1.0, reference_peak_mb=2.0))


@pytest.mark.parametrize("is_matryoshka", [False, True])
def test_the_plain_loop_does_what_the_definition_of_a_step_says(is_matryoshka):
    case = sae.Case(**TINY, is_matryoshka=is_matryoshka)
    # With every latent active on some row the definition leaves none as it was.
    state = sae.start(case, torch.linspace(0.5, 2, case.d_in)[None], "cpu")
    settings = state.settings
    plain = make_plain_step(settings, state.weights, state.column_speeds, 1e-3)
    defined = reference.make_step([state])
    losses = []
    for number in range(4):
        z = torch.randn(512, case.d_in, generator=torch.Generator().manual_seed(number))
        losses.append((float(plain(z)), float(defined(z, [Rates(settings.k, 1e-3)], number)[0, 0]) / len(z)))
    assert (state.last_active == 3).all()
    np.testing.assert_allclose(*np.transpose(losses), rtol=1e-5)


def test_the_sae_benchmark_has_a_row_a_case_with_share_and_memory(without_kernels, monkeypatch):
    monkeypatch.setattr(sae, "CASES", (sae.Case(**TINY, is_matryoshka=True),))
    monkeypatch.setattr(sae, "TOGETHER_DATA", TINY_DATA)
    monkeypatch.setattr(sae, "TOGETHER_K", (2, 4))
    monkeypatch.setattr(sae, "peak_mb", lambda case, who, device: {"ours": 1.0, "plain loop": 2.0}[who])
    alone, together = sae.sae("cpu")
    assert alone.case == "Matryoshka of 6, d 16, 64 latents, k 4, batch 32"
    assert alone.bound_share is not None
    assert (alone.peak_mb, alone.reference_peak_mb) == (1.0, 2.0)
    assert together.case == "4 trained at once against in turn, d 32, 64 latents, k 2-4 x 2 seeds, batch 256"


def test_saes_that_are_not_those_trained_alone_are_no_result(without_kernels, monkeypatch):
    def train(planted, settings, *rest):
        return sae_quality.train(planted, [replace(one, seed=len(settings)) for one in settings], *rest)

    monkeypatch.setattr(sae, "TOGETHER_DATA", TINY_DATA)
    monkeypatch.setattr(sae, "TOGETHER_K", (2,))
    monkeypatch.setattr(sae, "train", train)
    with pytest.raises(AssertionError, match="not those trained in turn"):
        sae._together_against_in_turn("cpu")


def test_the_scaling_benchmark_has_a_row_a_size(without_kernels, monkeypatch):
    monkeypatch.setattr(sae, "SCALING", tuple(sae.Case(**TINY | {"k": k}) for k in (2, 8)))
    assert [row.case.split(", ")[3] for row in sae.scaling("cpu")] == ["k 2", "k 8"]


@pytest.mark.slow
def test_peak_memory_is_that_of_a_fresh_process_and_grows_with_the_batch():
    small, large = (
        sae.peak_mb(sae.Case(d_in=16, n_latents=1024, k=4, batch_size=size), "plain loop", "cpu")
        for size in (64, 16_384)
    )
    assert large - small > 16_384 * 1024 * 4 / 1e6


def test_training_that_diverges_is_no_result():
    window = sae._window(lambda z, number: z.sum() * torch.nan, torch.zeros(4, 2), 2, 1)
    with pytest.raises(AssertionError, match="diverged"):
        window()


def test_the_truth_is_found_whole_and_its_codes_by_pursuit_leave_little_but_noise(without_kernels):
    planted = make_planted_dictionary(**TINY_DATA, n_test=300)
    quality = sae_quality.evaluate(sae_quality.planted_sae(planted), planted)
    assert quality["MMCS"] == pytest.approx(1)
    assert quality["rec90"] == 1
    assert quality["alive share"] == 1
    assert quality["L0"] == 3
    assert quality["FVU, codes by OMP"] < 0.03 < quality["FVU, codes refit"] < quality["FVU"] < 1


def test_quality_has_a_row_a_measure_and_stability_against_chance(without_kernels, monkeypatch):
    run = sae_quality.Run(label="tiny", data=TINY_DATA, k=4, epochs=3, data_seeds=(0, 1), seeds=(0, 1))
    monkeypatch.setattr(sae_quality, "RUNS", (run,))
    stability, *rows = sae_quality.sae_quality("cpu")
    assert stability.case == "top-k, tiny, k 4, 3 epochs, worst two of 2 seeds, to chance"
    assert 0 < stability.reference < stability.ours < 1
    assert {row.case for row in rows} == {"top-k, tiny, k 4, 3 epochs, worst of 3, to planted atoms"}
    assert [row.unit for row in rows] == ["FVU", "L0", "alive share", "MMCS", "rec90"]
    assert (rows[1].ours, rows[1].reference) == (pytest.approx(4, abs=0.1), 4)


def test_on_trees_of_atoms_matryoshka_stands_against_plain_top_k(without_kernels, monkeypatch):
    data = {**TINY_DATA, "n_children": 2}
    run = sae_quality.Run(label="trees", data=data, variants=("topk", "matryoshka"), k=4, epochs=2)
    monkeypatch.setattr(sae_quality, "RUNS", (run,))
    faults = [row for row in sae_quality.sae_quality("cpu") if row.case.endswith("to top-k")]
    assert [row.unit for row in faults] == ["parents absorbed", "parents missed", "atoms split"]
    assert {row.case.split(", ")[0] for row in faults} == {"Matryoshka of 6"}
    assert all(0 <= row.ours <= 1 for row in faults)


@pytest.mark.parametrize(
    ("measure", "pairs", "worst"),
    [
        ("FVU", [(0.1, 0.2), (0.3, 0.5)], 0.3),
        ("rec90", [(0.9, 1.0), (0.8, 1.0)], 0.8),
        ("L0", [(16.2, 16.0), (15.0, 16.0)], 15.0),
    ],
)
def test_the_worst_is_that_of_the_measure(measure, pairs, worst):
    assert max(pairs, key=sae_quality.badness(measure))[0] == worst


def test_a_reference_of_zero_has_no_ratio():
    row = Row(name="x", case="y", ours=0.1, reference=0.0, unit="share", ratio=None, threads=1, device="cpu")
    assert "0.1000 share, against the reference (0.000), 1 threads" in describe(row)
