import pytest
import torch
from torch import nn

from sfnetlab.training.optimizers import Optimization, learning_rate_at, make_optimizer


def optimization(**changed):
    chosen = {"optimizer": "adamw", "schedule": "one_cycle", "learning_rate": 1e-3, "weight_decay": 0.0} | changed
    return Optimization(**chosen)


def test_one_cycle_rises_for_a_quarter_and_falls_to_nearly_nothing():
    settings = optimization(schedule="one_cycle", learning_rate=1.0)
    rates = [learning_rate_at(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[25] == max(rates) == 1
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert learning_rate_at(100, 100, settings) == pytest.approx(1e-5)


def test_one_cycle_is_torchs():
    settings = optimization(schedule="one_cycle", learning_rate=0.3)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.3, total_steps=201, pct_start=51 / 201, final_div_factor=1e5 / 25, cycle_momentum=False
    )
    for step in range(200):
        assert learning_rate_at(step, 200, settings) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_flat_cosine_is_flat_for_three_quarters_and_falls_to_zero():
    settings = optimization(schedule="flat_cosine", learning_rate=2.0)
    assert {learning_rate_at(step, 8, settings) for step in range(7)} == {2.0}
    assert learning_rate_at(7, 8, settings) == pytest.approx(1.0)
    assert learning_rate_at(8, 8, settings) == 0


@pytest.mark.parametrize("optimizer", ["adamw", "ranger"])
def test_weight_decay_spares_biases_and_norms(optimizer):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    made = make_optimizer(model, optimization(optimizer=optimizer, weight_decay=0.5, learning_rate=0.1))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    assert model[0].weight.unique().item() == pytest.approx(1 - 0.1 * 0.5)
    assert {value.item() for p in (model[0].bias, model[1].weight, model[1].bias) for value in p} == {1.0}


@pytest.mark.parametrize("optimizer", ["adamw", "ranger"])
def test_optimiser_finds_a_least_squares_solution(optimizer):
    generator = torch.Generator().manual_seed(0)
    x, truth = torch.randn(64, 3, generator=generator), torch.tensor([[1.0, -2.0, 0.5]])
    model = nn.Linear(3, 1)
    settings = optimization(optimizer=optimizer, learning_rate=0.1, schedule="flat_cosine")
    made = make_optimizer(model, settings)
    for step in range(300):
        for group in made.param_groups:
            group["lr"] = learning_rate_at(step, 300, settings)
        made.zero_grad()
        (model(x) - x @ truth.T).square().mean().backward()
        made.step()
    torch.testing.assert_close(model.weight, truth, atol=1e-3, rtol=0)
