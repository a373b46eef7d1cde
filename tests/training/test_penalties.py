import numpy as np
import pytest
import torch
from torch import nn

from sfnetlab.metrics.effective import effective_number
from sfnetlab.models.backbones import make_backbone
from sfnetlab.models.sfnet import SparseFeatureNetwork
from sfnetlab.training.network import train_network
from sfnetlab.training.optimizers import Optimization
from sfnetlab.training.penalties import decorrelation, load_balance, penalties_of


def rows(n, d, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random((n, d)).astype(np.float32))


def descended(penalty, weight, inputs, k=2):
    """Features of a linear layer of near copies after some steps along the gradient of a penalty."""
    layer = nn.Linear(inputs.shape[1], 6)
    with torch.no_grad():
        layer.weight.copy_(0.5 + 0.2 * (rows(6, inputs.shape[1], seed=1) - 0.5))
        layer.bias.copy_(torch.linspace(0, 0.5, 6))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (weight * penalties_of(layer(inputs), k, {penalty: weight})).sum().backward()
        optimizer.step()
    return layer(inputs).detach()


def test_decorrelation_of_copies_is_the_number_of_others_and_of_independent_features_nearly_nothing():
    one = rows(4000, 1)
    assert decorrelation(one * torch.arange(1, 6)).item() == pytest.approx(4, rel=0.02)
    assert decorrelation(rows(4000, 5)).item() < 0.01


def test_decorrelation_is_the_same_for_features_of_another_size():
    features = rows(50, 5) @ rows(5, 5, seed=1)
    assert decorrelation(100 * features).item() == pytest.approx(decorrelation(10 * features).item(), rel=1e-3)


def test_decorrelation_of_constant_features_has_finite_slopes():
    features = torch.zeros(8, 3, requires_grad=True)
    decorrelation(features).backward()
    assert torch.isfinite(features.grad).all()


def test_load_balance_is_1_where_features_share_galaxies_evenly_and_more_where_few_have_all():
    even = 5 * torch.eye(6).repeat(4, 1)
    assert load_balance(even, 1).item() == pytest.approx(1, rel=1e-5)
    uneven = torch.zeros(24, 6)
    uneven[:, 0] = 5
    assert load_balance(uneven, 1).item() > 5


def test_decorrelation_makes_near_copies_more_effective_features():
    inputs = rows(200, 6)
    copies = effective_number(descended("decorrelation", 0.0, inputs).numpy())
    apart = effective_number(descended("decorrelation", 1.0, inputs).numpy())
    assert copies.n_effective == 1
    assert apart.n_effective == 6
    assert apart.participation > 2 * copies.participation


def test_load_balance_makes_more_features_active():
    inputs = rows(200, 6)
    n_active = [
        int((descended("load_balance", weight, inputs).topk(2).indices[..., None] == torch.arange(6)).any((0, 1)).sum())
        for weight in (0.0, 1.0)
    ]
    assert n_active[0] < n_active[1] == 6


def trained(tmp_path, penalties):
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (40, 32, 32, 3)).astype(np.uint8)
    network = SparseFeatureNetwork(make_backbone("test_resnet", "random", 5), "test_resnet", 1, 4)
    optimization = Optimization(optimizer="adamw", schedule="one_cycle", learning_rate=3e-3, weight_decay=0.0)
    (last,) = train_network(
        network, images, random.random((40, 1)), np.arange(30), np.arange(30, 40), epochs=1, batch_size=10,
        optimization=optimization, loss="rmse", augment=False, precision="float32", seed=0, device="cpu",
        checkpoint=tmp_path / str(len(penalties)), report=lambda _: None, penalties=penalties,
    )  # fmt: skip
    return network, last


def test_history_has_a_penalty_where_it_has_a_weight_and_only_there(tmp_path):
    plain, penalised = (trained(tmp_path, penalties)[1] for penalties in ({}, {"load_balance": 0.1}))
    assert penalised.keys() - plain.keys() == {"load_balance"}
    assert penalised["load_balance"] >= 1


def test_penalty_changes_the_trunk(tmp_path):
    plain, penalised = (trained(tmp_path, penalties)[0] for penalties in ({}, {"decorrelation": 1.0}))
    first = [next(network.encoder.backbone.parameters()) for network in (plain, penalised)]
    assert not torch.equal(*first)
