import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sfnetlab.errors import ArtifactError
from sfnetlab.training.checkpoint import read_checkpoint, write_checkpoint

dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
shapes = st.lists(st.integers(0, 3), max_size=4)
tensors = st.builds(lambda dtype, shape: (torch.rand(shape) * 3).to(dtype), dtypes, shapes)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.text() | st.integers()
states = st.recursive(
    plain | tensors,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


def equal(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b) and (a.numel() == 0 or a.stride() == b.stride())
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@given(state=states)
def test_what_is_read_is_what_was_written(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("checkpoint") / "c.safetensors"
    write_checkpoint(path, state)
    assert equal(read_checkpoint(path), state)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.RAdam])
def test_state_of_an_optimiser_in_channels_last_survives(tmp_path, optimizer):
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    made = optimizer(model.parameters())
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    made.step()
    write_checkpoint(tmp_path / "c", made.state_dict())
    assert equal(read_checkpoint(tmp_path / "c"), made.state_dict())


def test_infinite_and_undefined_numbers_survive(tmp_path):
    write_checkpoint(tmp_path / "c", [math.inf, math.nan])
    infinite, undefined = read_checkpoint(tmp_path / "c")
    assert infinite == math.inf
    assert math.isnan(undefined)


def test_tensors_that_share_memory_are_written_twice(tmp_path):
    tensor = torch.arange(4.0)
    write_checkpoint(tmp_path / "c", [tensor, tensor[:2]])
    assert equal(read_checkpoint(tmp_path / "c"), [tensor, tensor[:2]])


@pytest.mark.parametrize("state", [{"a": object()}, [{1.5: 2}], {"s": {1, 2}}])
def test_what_cannot_be_written_is_an_error(tmp_path, state):
    with pytest.raises(TypeError, match="checkpoint"):
        write_checkpoint(tmp_path / "c", state)


@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_an_error_or_changes_nothing(tmp_path_factory, position, flip):
    path = tmp_path_factory.mktemp("checkpoint") / "c.safetensors"
    state = {"weights": torch.arange(40.0), "step": 12}
    write_checkpoint(path, state)
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= flip
    path.write_bytes(content)
    try:
        assert equal(read_checkpoint(path), state)
    except ArtifactError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_half_a_file_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, torch.zeros(1000))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ArtifactError, match=r"c.safetensors: not a readable checkpoint.*remove it"):
        read_checkpoint(path)


def test_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "c", 1)

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr("sfnetlab.training.checkpoint.save", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_checkpoint(tmp_path / "c", 2)
    assert read_checkpoint(tmp_path / "c") == 1
