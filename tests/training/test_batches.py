import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfnetlab.surveys.images import N_DIHEDRAL, dihedral
from sfnetlab.training.batches import Ahead, Cutouts, fits, resident, turned


def some_images(n, side=5):
    return np.random.default_rng(n).integers(0, 255, (n, side, side, 3), dtype=np.uint8)


@given(ops=st.lists(st.integers(0, N_DIHEDRAL - 1), min_size=1, max_size=9).map(np.array), side=st.integers(1, 5))
def test_images_are_turned_on_a_device_as_on_the_host(ops, side):
    images = some_images(len(ops), side)
    np.testing.assert_array_equal(turned(torch.from_numpy(images), ops).numpy(), dihedral(images, ops))


@pytest.mark.parametrize("ops", [None, np.array([3, 0, 5, 6])])
def test_a_store_on_the_device_gives_what_one_on_disk_does(ops, tmp_path, monkeypatch):
    monkeypatch.setattr("sfnetlab.training.batches._BLOCK_ROWS", 4)
    np.save(tmp_path / "images.npy", some_images(10))
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    rows = np.array([9, 2, 2, 7])
    batches = [Cutouts(store, "cpu").take(rows, ops) for store in (images, resident(images, "cpu"))]
    assert torch.equal(*batches)
    expected = images[rows] if ops is None else dihedral(images[rows], ops)
    np.testing.assert_array_equal(batches[0].numpy(), expected)


def test_the_cpu_leaves_a_store_where_it_is():
    images = some_images(3)
    assert Cutouts.of(images, "cpu").images is images


@pytest.mark.parametrize(("n_bytes", "expected"), [(50, True), (51, False)])
def test_what_takes_more_than_half_of_a_gpus_free_memory_does_not_fit(n_bytes, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    assert fits(n_bytes, "cuda:0") is expected


def test_each_step_gets_its_own_and_nothing_is_read_beyond_the_last():
    read = []

    def reader(step):
        read.append((step, threading.current_thread() is threading.main_thread()))
        return step**2

    ahead = Ahead(reader, 5)
    assert [ahead.take(step) for step in (2, 3, 4)] == [4, 9, 16]
    assert read == [(2, False), (3, False), (4, False)]


def test_what_the_next_step_needs_is_read_while_this_one_is_taken():
    has_read = threading.Event()
    ahead = Ahead(lambda step: has_read.set() if step == 1 else None, 2)
    ahead.take(0)
    assert has_read.wait(10)


def test_an_error_of_reading_comes_with_the_step_that_needs_it():
    ahead = Ahead(lambda step: 1 // (1 - step), 3)
    assert ahead.take(0) == 1
    with pytest.raises(ZeroDivisionError):
        ahead.take(1)
