import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfnetlab.models.topk import keep_top_k

# Few distinct values, so that ties are common.
activations = hnp.arrays("f4", st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.integers(0, 4).map(float))


@given(activations, st.data())
def test_at_most_k_values_are_nonzero_and_they_are_the_largest(values, data):
    k = data.draw(st.integers(1, values.shape[1]))
    kept = keep_top_k(torch.from_numpy(values), k).numpy()
    assert ((kept != 0).sum(axis=1) <= k).all()
    for row, kept_row in zip(values, kept, strict=True):
        best = sorted(range(len(row)), key=lambda column: (-row[column], column))[:k]
        assert kept_row.tolist() == [value if column in best else 0 for column, value in enumerate(row)]


@given(activations, st.data())
def test_rows_do_not_influence_each_other(values, data):
    x, k = torch.from_numpy(values), data.draw(st.integers(1, values.shape[1]))
    alone = torch.cat([keep_top_k(row[None], k) for row in x])
    assert torch.equal(keep_top_k(x, k), alone)


def test_gradient_reaches_only_what_is_kept():
    x = torch.tensor([[3.0, 1.0, 2.0]], requires_grad=True)
    keep_top_k(x, 2).sum().backward()
    assert x.grad.tolist() == [[1, 0, 1]]


def test_what_is_dropped_is_zero_even_where_it_is_infinite():
    assert keep_top_k(torch.tensor([[1.0, -torch.inf]]), 1).tolist() == [[1, 0]]


@pytest.mark.parametrize("k", [0, 4])
def test_impossible_k_is_an_error(k):
    with pytest.raises(ValueError, match=rf"\[1, n_features=3\], got {k}"):
        keep_top_k(torch.zeros(2, 3), k)
