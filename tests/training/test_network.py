import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sfnetlab.errors import ArtifactError, DataError, TrainingError
from sfnetlab.metrics.quantiles import pinball_losses
from sfnetlab.models.backbones import make_backbone
from sfnetlab.models.sfnet import SparseFeatureNetwork
from sfnetlab.models.views import ImageView
from sfnetlab.surveys.images import dihedral
from sfnetlab.training import batches, learner, loop, network
from sfnetlab.training.network import embed_batches, embed_turned, root, train_network
from sfnetlab.training.optimizers import Optimization

N, SIDE = 44, 32
TRAIN, VALID = np.arange(2, 35), np.arange(35, N)
RATES = {"schedule": "one_cycle", "learning_rate": 3e-3, "weight_decay": 0.01}
SETTINGS = {
    "epochs": 2,
    "batch_size": 8,
    "optimization": Optimization(optimizer="adamw", **RATES),
    "loss": "rmse",
    "augment": True,
    "precision": "float32",
}


class KilledError(Exception):
    pass


def silent(history):
    pass


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    rng = np.random.default_rng(0)
    brightness = rng.integers(20, 200, N)[:, None, None, None]
    noise = rng.integers(0, 50, (N, SIDE, SIDE, 3))
    path = tmp_path_factory.mktemp("survey") / "images.npy"
    np.save(path, (brightness + noise).astype(np.uint8))
    return np.load(path, mmap_mode="r")


@pytest.fixture(scope="module")
def targets(images):
    brightness = images.mean(axis=(1, 2, 3)) / 255
    targets = np.stack([8 + brightness, -2 + 10 * brightness], axis=1)
    targets[0] = np.nan  # a row that no one may look at
    return targets


def run(images, targets, checkpoint, *, report=silent, k=4, train=TRAIN, valid=VALID, seed=3, **changed):
    settings = SETTINGS | changed
    model = SparseFeatureNetwork(make_backbone("test_resnet", "random", 5), "test_resnet", targets.shape[1], k)
    history = train_network(
        model, images, targets, train, valid, **settings,
        seed=seed, device="cpu", checkpoint=checkpoint, report=report,
    )  # fmt: skip
    return model, [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in history]


def assert_same(a, b):
    assert a[1] == b[1]
    for name, value in a[0].state_dict().items():
        assert torch.equal(value, b[0].state_dict()[name]), name


@pytest.mark.parametrize("killed_before", [1, 4, 5, 8])
@pytest.mark.parametrize(
    ("optimizer", "precision"), [("adamw", "float32"), ("ranger", "float32"), ("adamw", "bfloat16")]
)
def test_resumed_training_equals_uninterrupted(
    tmp_path, images, targets, monkeypatch, optimizer, precision, killed_before
):
    changed = {"optimization": Optimization(optimizer=optimizer, **RATES), "precision": precision}
    whole = run(images, targets, tmp_path / "whole", **changed)
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL_S", 0)
    with monkeypatch.context() as patched:
        calls = iter(range(99))
        take = batches.Cutouts.take

        def killer(cutouts, rows, ops):
            if next(calls) == killed_before:
                raise KilledError
            return take(cutouts, rows, ops)

        patched.setattr(batches.Cutouts, "take", killer)
        with pytest.raises(KilledError):
            run(images, targets, tmp_path / "killed", **changed)
    assert_same(run(images, targets, tmp_path / "killed", **changed), whole)


def test_a_device_with_memory_of_its_own_trains_to_the_same_bits(tmp_path, images, targets, monkeypatch):
    """The store lies on the device, and a thread reads ahead; the CPU stands for the device."""
    as_ever = run(images, targets, tmp_path / "a")
    resident = [batches.Cutouts(batches.resident(images, "cpu"), "cpu")]
    monkeypatch.setattr(network, "Cutouts", SimpleNamespace(of=lambda images, device: resident[0]))
    monkeypatch.setattr(
        network, "ModuleLearner", lambda *a, **k: learner.ModuleLearner(*a, **k | {"reads_ahead": True})
    )
    assert_same(run(images, targets, tmp_path / "b"), as_ever)


def test_training_killed_by_its_report_resumes_to_the_same_end(tmp_path, images, targets, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL_S", 0)
    whole = run(images, targets, tmp_path / "whole")

    def killer(history):
        raise KilledError

    with pytest.raises(KilledError):
        run(images, targets, tmp_path / "killed", report=killer)
    reported = []
    assert_same(run(images, targets, tmp_path / "killed", report=lambda h: reported.append(len(h))), whole)
    assert reported == [1, 2]


def test_finished_run_is_not_trained_again(tmp_path, images, targets, monkeypatch):
    first = run(images, targets, tmp_path / "c")
    monkeypatch.setattr(learner.ModuleLearner, "learn", None)
    assert_same(run(images, targets, tmp_path / "c"), first)


def test_checkpoint_of_other_settings_is_refused(tmp_path, images, targets):
    run(images, targets, tmp_path / "c")
    with pytest.raises(ArtifactError, match=r"other settings \(seed\)"):
        run(images, targets, tmp_path / "c", seed=4)


def test_training_learns_and_records_label_units(tmp_path, images, targets):
    model, history = run(images, targets, tmp_path / "c", epochs=12, k=None)
    assert [row["epoch"] for row in history] == list(range(1, 13))
    spread = targets[VALID].std(axis=0)
    assert (np.array(history[-1]["valid_rmse_columns"]) < 0.5 * spread).all()
    predicted = np.concatenate(list(embed_batches(model.predict, images, VALID, batch_size=4, device="cpu")))
    rmse = np.sqrt(np.mean((predicted - targets[VALID]) ** 2))
    assert history[-1]["valid_rmse"] == pytest.approx(rmse, rel=1e-4)


def test_statistics_are_those_of_the_training_rows(tmp_path, images, targets):
    model, _ = run(images, targets, tmp_path / "c")
    pixels = images[TRAIN].reshape(-1, 3) / 255
    np.testing.assert_allclose(model.encoder.pixel_mean, pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.encoder.pixel_std, pixels.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.target_mean, targets[TRAIN].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.target_std, targets[TRAIN].std(axis=0), rtol=1e-5)


def test_another_seed_is_another_run(tmp_path, images, targets):
    assert run(images, targets, tmp_path / "a", seed=1)[1] != run(images, targets, tmp_path / "b", seed=2)[1]


def test_loss_that_is_not_finite_stops_and_keeps_the_good_checkpoint(tmp_path, images, targets, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL_S", 0)
    monkeypatch.setattr(learner, "learning_rate_at", lambda step, *_: 1e-3 if step < 3 else float("inf"))
    with pytest.raises(TrainingError, match=r"step [34] of 10 .* not finite .*last good checkpoint is .*/c\)"):
        run(images, targets, tmp_path / "c")
    monkeypatch.undo()
    run(images, targets, tmp_path / "c")


def test_perfect_fit_has_a_finite_gradient():
    prediction = torch.zeros(3, 1, requires_grad=True)
    root(prediction.square().mean()).backward()
    assert prediction.grad.isfinite().all()


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"), [(3, 2, [3]), (9, 8, [5, 4]), (33, 8, [7, 7, 7, 6, 6]), (4, 8, [4])]
)
def test_no_batch_is_ragged_or_of_one_row(n, batch_size, sizes, tmp_path):
    course = loop.Course(
        n_rows=n,
        batch_size=batch_size,
        epochs=1,
        seed=0,
        checkpoint=tmp_path,
        settings={},
        label="",
        unit="",
        smallest_batch=2,
    )
    batches = course.batches(0)
    assert [len(batch) for batch in batches] == sizes
    assert sorted(np.concatenate(batches)) == list(range(n))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ({"train": np.arange(0, 30)}, r"1 of 30 train rows are not finite \(first: row 0\)"),
        ({"valid": np.array([], dtype=int)}, "no validation rows"),
    ],
)
def test_unusable_targets_are_an_error(tmp_path, images, targets, rows, problem):
    with pytest.raises(DataError, match=problem):
        run(images, targets, tmp_path / "c", **rows)


def test_constant_target_is_an_error(tmp_path, images):
    with pytest.raises(DataError, match="column 0 has one value in all 33 train rows"):
        run(images, np.ones((N, 1)), tmp_path / "c")


def test_embedding_does_not_depend_on_the_batch(images):
    model = SparseFeatureNetwork(make_backbone("test_resnet", "random", 0), "test_resnet", 1, 4).eval()
    together = np.concatenate(list(embed_batches(model.features, images, device="cpu")))
    rows = np.array([40, 3, 3, 17])
    alone = np.concatenate(list(embed_batches(model.features, images, rows, batch_size=1, device="cpu")))
    np.testing.assert_allclose(alone, together[rows], rtol=1e-4, atol=1e-5)


def test_embedding_in_training_mode_is_an_error(images):
    model = SparseFeatureNetwork(make_backbone("test_resnet", "random", 0), "test_resnet", 1, 4)
    with pytest.raises(ValueError, match="training mode"):
        next(embed_batches(model.features, images, device="cpu"))


# --- quantiles, views, symmetries -------------------------------------------------------------------------------------


def test_a_network_of_quantiles_learns_them_by_the_pinball_loss(tmp_path, images, targets):
    levels = (0.16, 0.5, 0.84)
    model = SparseFeatureNetwork(make_backbone("test_resnet", "random", 5), "test_resnet", 1, None, quantiles=levels)
    history = train_network(
        model, images, targets[:, :1], TRAIN, VALID, **SETTINGS | {"epochs": 12},
        seed=3, device="cpu", checkpoint=tmp_path / "c", report=silent,
    )  # fmt: skip
    predicted = np.concatenate(list(embed_batches(model.predict, images, VALID, device="cpu")))
    losses = pinball_losses(targets[VALID, 0], predicted, levels)
    assert history[-1]["valid_pinball"] == pytest.approx(losses.mean(), rel=1e-4)
    constant = np.tile(np.quantile(targets[TRAIN, 0], levels), (len(VALID), 1))
    assert losses.mean() < 0.5 * pinball_losses(targets[VALID, 0], constant, levels).mean()
    rmse = np.sqrt(np.mean((predicted[:, 1] - targets[VALID, 0]) ** 2))
    assert history[-1]["valid_rmse"] == pytest.approx(rmse, rel=1e-4)


def test_statistics_are_those_of_what_is_shown(tmp_path, images, targets):
    view = ImageView(degrade_to=1)
    model = SparseFeatureNetwork(make_backbone("test_resnet", "random", 5), "test_resnet", 2, 4, view=view)
    train_network(
        model, images, targets, TRAIN, VALID, **SETTINGS, seed=3, device="cpu", checkpoint=tmp_path / "c", report=silent
    )
    means = images[TRAIN].mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(model.encoder.pixel_mean, means.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.encoder.pixel_std, means.std(axis=0), rtol=1e-4)


def test_turned_embeddings_are_those_of_turned_cutouts(images):
    model = SparseFeatureNetwork(make_backbone("test_resnet", "random", 0), "test_resnet", 1, 4).eval()
    rows = np.array([4, 9])
    found = [np.concatenate(list(batches)) for batches in embed_turned(model.features, images, rows, device="cpu")]
    for op, values in enumerate(found):
        turned = dihedral(np.asarray(images[rows]), np.full(2, op))
        expected = np.concatenate(list(embed_batches(model.features, turned, device="cpu")))
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("level", "interval_s", "told"), [("INFO", 60, [3]), ("DEBUG", 60, [1, 2, 3]), ("INFO", 0, [1, 2, 3])]
)
def test_the_log_has_the_start_the_end_and_an_epoch_a_minute(level, interval_s, told, caplog, monkeypatch):
    monkeypatch.setattr(loop, "LOG_INTERVAL_S", interval_s)
    caplog.set_level(level, "sfnetlab")
    course = loop.Course(
        n_rows=10, batch_size=5, epochs=3, seed=0, checkpoint=None, settings={}, label="net", unit="image"
    )
    log = loop.EpochLog(course)
    for epoch in (1, 2, 3):
        log.tell(epoch, "loss=1")
    shown = [record.getMessage() for record in caplog.records if record.levelno >= logging.getLevelName(level)]
    assert shown == ["net: 3 epochs of 2 steps", *(f"net: epoch {epoch}/3 loss=1" for epoch in told)]


# --- precision --------------------------------------------------------------------------------------------------------


def network_in(precision):
    model = SparseFeatureNetwork(make_backbone("test_resnet", "random", 5), "test_resnet", 1, 4)
    model.encoder.precision = precision
    return model


def some_cutouts(side):
    return torch.randint(0, 255, (8, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_bfloat16_rounds_the_trunk_in_training_and_nothing_of_a_trained_network():
    batch = some_cutouts(SIDE)
    rounded, exact = network_in("bfloat16"), network_in("float32")
    expected = exact.encoder(batch)
    off = (rounded.encoder(batch) - expected).abs().max() / expected.abs().max()
    assert 1e-4 < off < 0.05
    exact.load_state_dict(rounded.state_dict())
    assert torch.equal(rounded.eval().features(batch), exact.eval().features(batch))


def test_in_bfloat16_pooled_features_statistics_and_gradients_are_float32():
    model = network_in("bfloat16")
    pooled = model.encoder(some_cutouts(3 * SIDE))  # whose last map has more than one pixel
    assert not torch.equal(pooled, pooled.bfloat16().float())
    model(some_cutouts(SIDE)).square().mean().backward()
    tensors = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in model.parameters())]
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float32}


def test_training_in_bfloat16_learns_and_says_so(tmp_path, images, targets):
    _, history = run(images, targets, tmp_path / "c", epochs=12, k=None, precision="bfloat16")
    spread = targets[VALID].std(axis=0)
    assert (np.array(history[-1]["valid_rmse_columns"]) < 0.5 * spread).all()
    assert {row["precision"] for row in history} == {"bfloat16"}
