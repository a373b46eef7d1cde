import numpy as np
import pytest
import torch

from sfnetlab.errors import DataError, TrainingError
from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained
from sfnetlab.schema import SAE
from sfnetlab.training import loop
from sfnetlab.training import sae as training
from sfnetlab.training.sae import train_sae


class KilledError(Exception):
    pass


def silent(history):
    pass


def planted(n=4096, d_in=32, n_atoms=64, n_active=4):
    """Rows that are sums of a few atoms of a dictionary, about a mean that is not zero."""
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((n_atoms, d_in))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    latents = np.zeros((n, n_atoms))
    active = rng.random((n, n_atoms)).argsort(axis=1)[:, :n_active]
    np.put_along_axis(latents, active, rng.gamma(4, 0.25, (n, n_active)), axis=1)
    return (latents @ atoms + 3 + 0.02 * rng.standard_normal((n, d_in))).astype(np.float32), atoms


X, ATOMS = planted()


def settings(variant="topk", **changes):
    return SAE(**{"name": "sae", "on": "dense", "variant": variant, "n_latents": 64, "epochs": 2} | changes)


def run(checkpoint, made=None, x=X, k=4, seed=1, report=silent):
    return train_sae(x, made or settings(), k, seed=seed, device="cpu", checkpoint=checkpoint, report=report)


def assert_same(a, b):
    for row, other in zip(a[1], b[1], strict=True):
        assert all(row[key] == other[key] for key in row.keys() - {"seconds", "rows_per_s"})
    for name, value in a[0].state_dict().items():
        assert torch.equal(value, b[0].state_dict()[name]), name


def test_planted_dictionary_is_recovered(tmp_path):
    sae, history = run(tmp_path / "c", settings(epochs=30, batch_size=128))
    cosines = ATOMS @ sae.W_dec.numpy().T
    assert cosines.max(axis=1).mean() > 0.9
    assert history[-1]["dead_fraction"] < 0.05
    assert history[-1]["l0"] == pytest.approx(4, abs=0.1)


def test_recorded_fvu_is_that_of_the_embedding(tmp_path):
    sae, history = run(tmp_path / "c", settings(epochs=20))
    assert history[-1]["train_fvu"] == pytest.approx(fraction_of_variance_unexplained(X, sae.reconstruct(X)), rel=0.1)


def test_units_of_the_embedding_do_not_matter(tmp_path):
    small, large = run(tmp_path / "a")[1][-1], run(tmp_path / "b", x=X * 1000)[1][-1]
    assert small["train_fvu"] == pytest.approx(large["train_fvu"], rel=1e-2)


def test_atoms_have_length_one_after_each_step(tmp_path, monkeypatch):
    lengths, step = [], training._SAELearner.step

    def watched(self, *arguments):
        sums = step(self, *arguments)
        lengths.append(self.sae.W_dec.detach().norm(dim=1))
        return sums

    monkeypatch.setattr(training._SAELearner, "step", watched)
    run(tmp_path / "c")
    assert len(lengths) == 32
    torch.testing.assert_close(torch.stack(lengths), torch.ones(32, 64))


def test_matryoshka_prefixes_reconstruct_better_than_those_of_a_plain_sae(tmp_path):
    made = settings("matryoshka", group_sizes=(8, 24, 32), epochs=10)
    nested, _ = run(tmp_path / "a", made)
    plain, _ = run(tmp_path / "b", settings(epochs=10))
    plain.group_sizes = nested.group_sizes
    x = torch.from_numpy(X)
    errors = [(sae.decode_prefixes(sae.encode(x))[:, 0] - x).square().mean() for sae in (nested, plain)]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("variant", ["topk", "matryoshka"])
@pytest.mark.parametrize("killed_before", [1, 9, 16, 25])
def test_resumed_training_equals_uninterrupted(tmp_path, monkeypatch, variant, killed_before):
    whole = run(tmp_path / "whole", settings(variant))
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL_S", 0)
    with monkeypatch.context() as patched:
        step = training._SAELearner.step

        def killer(self, rows, number):
            if number == killed_before:
                raise KilledError
            return step(self, rows, number)

        patched.setattr(training._SAELearner, "step", killer)
        with pytest.raises(KilledError):
            run(tmp_path / "killed", settings(variant))
    assert_same(run(tmp_path / "killed", settings(variant)), whole)


def test_k_comes_down_to_its_value_and_the_rate_to_zero(tmp_path):
    history = run(tmp_path / "c", settings(epochs=10))[1]
    assert history[0]["k"] > history[3]["k"] > 4
    assert {row["k"] for row in history[6:]} == {4}
    assert history[-1]["learning_rate"] < 0.1 * history[5]["learning_rate"]


def test_silent_latents_are_started_again(tmp_path, monkeypatch):
    start = training._start_tied

    def with_dead_latents(sae, rng):
        start(sae, rng)
        with torch.no_grad():
            sae.b_enc[:32] = -1e3

    monkeypatch.setattr(training, "_start_tied", with_dead_latents)
    history = run(tmp_path / "c", settings(epochs=10))[1]
    assert history[0]["dead_fraction"] >= 0.5
    assert history[-1]["dead_fraction"] < 0.25


def test_weights_that_are_not_finite_stop_and_keep_the_good_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL_S", 0)
    rate = training._SAELearner._learning_rate
    monkeypatch.setattr(training._SAELearner, "_learning_rate", lambda s, step: rate(s, step) if step < 9 else np.inf)
    with pytest.raises(TrainingError, match=r"after step 9 of 32 are not finite \(the last good checkpoint is .*/c\)"):
        run(tmp_path / "c")
    monkeypatch.undo()
    run(tmp_path / "c")


def test_default_groups_are_nested_fractions_of_the_dictionary(tmp_path):
    sae, _ = run(tmp_path / "c", settings("matryoshka", epochs=1))
    assert sae.group_sizes == (2, 2, 4, 8, 16, 32)


def test_fewer_rows_than_a_batch_are_one_batch(tmp_path):
    history = run(tmp_path / "c", x=X[:50])[1]
    assert [row["step"] for row in history] == [1, 2]


def broken_row():
    x = X.copy()
    x[5, 2] = np.nan
    return x


@pytest.mark.parametrize(
    ("x", "problem"),
    [
        (np.full((100, 32), 0.1, dtype=np.float32), "all 100 embeddings are the same"),
        (broken_row(), r"1 of 4096 embeddings are not finite \(first: row 5\)"),
        (X[:0], "at least one row"),
    ],
)
def test_unusable_embeddings_are_an_error(tmp_path, x, problem):
    with pytest.raises(DataError, match=problem):
        run(tmp_path / "c", x=x)
