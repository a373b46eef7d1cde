"""The race of the lab's training recipe against the SFNet paper's."""

import numpy as np
import pytest
from PIL import Image

from sfnetlab.bench import speedrun
from sfnetlab.settings import Training


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    speedrun.make_survey(folder, 60)
    return folder


@pytest.mark.parametrize(("rmse", "seconds"), [(0.3, 2), (0.25, 6), (0.1, np.inf)])
def test_seconds_are_those_to_the_first_epoch_that_is_as_good(rmse, seconds):
    outcome = speedrun.Outcome(rmses=[0.3, 0.32, 0.2], seconds=[2, 4, 6], n_alive=1, n_effective=1.0)
    assert outcome.seconds_until(rmse) == seconds


def test_both_recipes_see_the_same_pixels(folder):
    store = np.load(folder / "images.npy")
    for place, image in enumerate(store):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / f"{place}.jpg")), image)
    assert len(store) == len(np.load(folder / "labels.npy"))


@pytest.mark.parametrize("train", [speedrun.train_as_the_lab, speedrun.train_as_the_paper])
def test_a_training_tells_rmse_and_seconds_of_each_epoch_and_its_features(train, folder):
    outcome = train(folder, Training(epochs=2, batch_size=16), 0, "cpu")
    assert len(outcome.rmses) == len(outcome.seconds) == 2
    assert 0 < outcome.seconds[0] < outcome.seconds[1]
    assert np.isfinite(outcome.rmses).all()
    assert 1 <= outcome.n_effective <= outcome.n_alive <= 512


def test_a_row_holds_the_means_over_seeds_against_the_papers(monkeypatch):
    def train(folder, training, seed, device):
        return speedrun.Outcome([0.3, 0.2 + 0.01 * seed], [1.0, 2.0 + seed], 10, 5.0)

    class Here:
        def __init__(self, *_, **__): ...
        def __enter__(self):
            return self

        def __exit__(self, *_): ...
        def submit(self, function, *arguments):
            return type("Done", (), {"result": lambda self: function(*arguments)})()

    monkeypatch.setattr(speedrun, "make_survey", lambda *_: None)
    monkeypatch.setattr(speedrun, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(speedrun, "train_as_the_lab", train)
    monkeypatch.setattr(speedrun, "train_as_the_paper", train)
    seconds, rmse, alive, effective = speedrun.rows_of(50, (0, 1), "cpu")
    assert (seconds.ours, seconds.reference, seconds.ratio) == (2.5, 2.5, 1)
    assert rmse.ours == pytest.approx(0.205)
    assert (alive.ours, effective.ours) == (10, 5)
