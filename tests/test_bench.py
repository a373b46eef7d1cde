"""The benchmark command and its parts: rows with a ratio, a fair reference, unknown names refused."""

import json
import time
from dataclasses import fields

import numpy as np
import pytest
import torch

from sfnetlab import cli
from sfnetlab.bench import Row, describe, sae
from sfnetlab.bench.compare import compare
from sfnetlab.bench.plain_sae import make_plain_step
from sfnetlab.training.sae import reference
from sfnetlab.training.sae.stack import Rates

TINY = {"d_in": 16, "n_latents": 64, "k": 4, "batch_size": 32}


@pytest.fixture
def without_kernels(monkeypatch):
    """The plain step in the place of the kernels, which would have to be compiled."""
    monkeypatch.setattr(sae, "_make_step", lambda stacks, device: reference.make_step(stacks))
    monkeypatch.setattr(sae, "N_ROWS", 1000)
    monkeypatch.setattr(sae, "_WINDOW_STEPS", (1, 2))
    monkeypatch.setattr(sae, "_CALIBRATION_S", 0.001)


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


def test_ratio_and_shares_of_the_bound_are_those_of_the_times():
    def sleep(seconds):
        return lambda: time.sleep(seconds)

    row = compare("x", "y", "calls/s", 1, sleep(0.01), sleep(0.04), "cpu", bound=lambda: 200.0, peaks_mb=(1.0, 2.0))
    assert row.ratio == pytest.approx(4, rel=0.2)
    assert row.bound_share == pytest.approx(0.5, rel=0.2)
    assert row.reference_bound_share == pytest.approx(0.125, rel=0.2)
    assert "of the bound" in describe(row)
    assert "1 MB (2)" in describe(row)


@pytest.mark.parametrize("is_matryoshka", [False, True])
def test_the_plain_loop_does_what_the_definition_of_a_step_says(is_matryoshka):
    case = sae.Case(**TINY, is_matryoshka=is_matryoshka)
    # With every latent active on some row there is nothing that only the definition's lazy Adam would leave as it was.
    settings, weights = case.settings(), sae._start(case.settings(), case.d_in, "cpu")
    stack = sae._stack([settings], [weights])
    defined = reference.make_step([stack])
    losses = []
    plain = make_plain_step(settings, weights, 1e-3)
    for number in range(4):
        z = torch.randn(512, case.d_in, generator=torch.Generator().manual_seed(number))
        losses.append((float(plain(z)), float(defined(z, [Rates(settings.k, 1e-3)], number)[0, 0]) / len(z)))
    assert (stack.last_active == 3).all()
    np.testing.assert_allclose(*np.transpose(losses), rtol=1e-5)


def test_the_sae_benchmark_has_a_row_a_case_with_share_and_memory(without_kernels, monkeypatch):
    monkeypatch.setattr(sae, "CASES", (sae.Case(**TINY, is_matryoshka=True),))
    monkeypatch.setattr(sae, "TOGETHER", sae.Case(**TINY))
    monkeypatch.setattr(sae, "peak_mb", lambda case, who, device: {"ours": 1.0, "plain loop": 2.0}[who])
    alone, together = sae.sae("cpu")
    assert alone.case == "Matryoshka of 6, d 16, 64 latents, k 4, batch 32"
    assert alone.bound_share is not None
    assert (alone.peak_mb, alone.reference_peak_mb) == (1.0, 2.0)
    assert together.case.startswith("8 at once against in turn")


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
