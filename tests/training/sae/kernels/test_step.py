"""The kernels' step against the plain one, and what only kernels can get wrong."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sfnetlab import runtime
from sfnetlab.training.sae import reference
from sfnetlab.training.sae.kernels import step as kernels
from sfnetlab.training.sae.settings import SAESettings
from sfnetlab.training.sae.state import Rates, SAEState, Step, new_state

RATE = 1e-3
VARIANTS: list[dict[str, Any]] = [
    {"variant": "topk"},
    {"variant": "batch_topk"},
    {"variant": "matryoshka", "selection": "topk"},
    {"variant": "matryoshka", "selection": "batch_topk"},
]


@pytest.fixture(autouse=True)
def bfloat16_at_any_k() -> Iterator[None]:
    """Small problems have many active latents: where bfloat16 would not pay it must still be right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "ROUGH_SHARE", 0)
        yield


def random_state(
    n_latents: int, d_in: int, k: int, seed: int = 0, group_sizes: tuple[int, ...] = (), **chosen: Any
) -> SAEState:
    if chosen["variant"] == "matryoshka":
        group_sizes = group_sizes or (n_latents,)
    generator = torch.Generator().manual_seed(seed)
    weights = {
        "W_enc": torch.randn(n_latents, d_in, generator=generator) / d_in**0.5,
        "b_enc": 0.1 * torch.randn(n_latents, generator=generator),
        "W_dec": torch.nn.functional.normalize(torch.randn(n_latents, d_in, generator=generator), dim=1),
        "b_dec": 0.1 * torch.randn(d_in, generator=generator),
    }
    chosen_settings = SAESettings(n_latents=n_latents, k=k, seed=seed, group_sizes=group_sizes, **chosen)
    column_speeds = 0.5 + torch.rand(d_in, generator=generator)
    return new_state(chosen_settings, weights, silent_after=100, column_speeds=column_speeds)


def make_step(states: list[SAEState], *, has_bfloat16: bool | None = None) -> Step:
    """The kernels' steps, one at a time."""
    steps = kernels.make_steps(states, has_bfloat16=has_bfloat16)
    return lambda z, rates, number: steps([z], [rates], number)[0]


def tensors(state: SAEState) -> dict[str, Tensor]:
    parts = {"weights": state.weights, "means": state.means, "squares": state.mean_squares}
    named = {f"{part} {name}": tensor for part, group in parts.items() for name, tensor in group.items()}
    return {**named, "last_active": state.last_active}


def copy(state: SAEState) -> SAEState:
    """The state before a first step with copies of these weights."""
    weights = {name: weight.clone() for name, weight in state.weights.items()}
    return new_state(state.settings, weights, state.silent_after, state.column_speeds)


def copy_state(source: SAEState, target: SAEState) -> None:
    for ours, theirs in zip(tensors(target).values(), tensors(source).values(), strict=True):
        ours.copy_(theirs)


ENGINES = pytest.mark.parametrize("has_bfloat16", [False, True], ids=["float32", "bfloat16"])


def assert_close(ours: SAEState, theirs: SAEState) -> None:
    """To rounding; a latent moves by gradient / |gradient|, so only where there is a gradient is that one direction."""
    expected = tensors(theirs)
    for name, tensor in tensors(ours).items():
        other = expected[name]
        if name.startswith("weights"):
            square = expected[f"squares {name.removeprefix('weights ')}"]
            has_gradient = (square > 1e-6 * square.max()).expand(len(tensor))  # b_dec has one square
            np.testing.assert_allclose(tensor[has_gradient], other[has_gradient], atol=0.02 * RATE, err_msg=name)
            np.testing.assert_allclose(tensor, other, atol=20 * RATE, err_msg=name)
        else:
            # Terms cancel: nearly all of a code's gradient may, residual times atom, and what lies along the atom does.
            np.testing.assert_allclose(tensor, other, atol=1e-4 * float(other.abs().max()), err_msg=name)


def assert_steps_agree(
    state: SAEState, batches: list[Tensor], ks: list[int], *others: SAEState, has_bfloat16: bool
) -> None:
    """Each step from the same state: what differs after one is rounding, and rounding must not add up to ties."""
    theirs = [state, *others]
    ours = [copy(one) for one in theirs]
    our_step, their_step = make_step(ours, has_bfloat16=has_bfloat16), reference.make_step(theirs)
    for number, (z, k) in enumerate(zip(batches, ks, strict=True)):
        rates = [Rates(k, RATE)] * len(theirs)
        sums, expected = our_step(z, rates, number), their_step(z, rates, number)
        np.testing.assert_allclose(sums, expected, rtol=2e-5, atol=3e-5)
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other)
            copy_state(other, one)


@st.composite
def problems(draw: st.DrawFn) -> tuple[SAEState, list[Tensor], list[int]]:
    n_latents, d_in = draw(st.integers(1, 150)), draw(st.integers(2, 40))
    chosen: dict[str, Any] = dict(
        draw(st.sampled_from(VARIANTS)), frozen=draw(st.sampled_from(["none", "encoder", "decoder", "both"]))
    )
    cuts = draw(st.sets(st.integers(1, max(1, n_latents - 1)), max_size=4)) if n_latents > 1 else set()
    ends = [0, *sorted(cuts), n_latents]
    groups = tuple(b - a for a, b in pairwise(ends)) if chosen["variant"] == "matryoshka" else ()
    k = draw(st.one_of(st.sampled_from([1, n_latents]), st.integers(1, n_latents)))
    seed = draw(st.integers(0, 1000))
    state = random_state(n_latents, d_in, k, seed, group_sizes=groups, **chosen)
    n_rows = draw(st.sampled_from([1, 2, 40, 127, 128, 129, 300, 1023, 1030]))
    generator = torch.Generator().manual_seed(seed + 1)
    batches = [torch.randn(n_rows + change, d_in, generator=generator) for change in (0, 1, 0)]
    return state, batches, [k, k, max(1, k // 2)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems(), st.booleans())
def test_the_step_equals_the_reference(problem: tuple[SAEState, list[Tensor], list[int]], has_bfloat16: bool) -> None:
    assert_steps_agree(*problem, has_bfloat16=has_bfloat16)


def stable_select(pre: Tensor, k: int, *, is_batch_wide: bool) -> Tensor:
    """The contract's order among equal values, which torch.topk does not promise."""
    positive = torch.relu(pre)
    rows = positive.reshape(1, -1) if is_batch_wide else positive
    kept = rows.sort(dim=1, descending=True, stable=True)
    n_kept = k * len(pre) if is_batch_wide else k
    selected = torch.zeros_like(rows).scatter(1, kept.indices[:, :n_kept], kept.values[:, :n_kept])
    return selected.reshape(pre.shape)


@ENGINES
@pytest.mark.parametrize("chosen", VARIANTS)
def test_of_equal_values_the_first_are_selected(
    chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool
) -> None:
    monkeypatch.setattr(reference, "select", stable_select)
    state = random_state(100, 6, 7, **chosen, group_sizes=(1, 30, 69) if chosen["variant"] == "matryoshka" else ())
    generator = torch.Generator().manual_seed(0)
    state.weights["W_enc"].copy_(torch.randint(-2, 3, (100, 6), generator=generator))
    state.weights["b_enc"].zero_()
    rows = torch.randint(-2, 3, (150, 6), generator=generator).float()
    assert_steps_agree(state, [rows], [7], has_bfloat16=has_bfloat16)


@ENGINES
@pytest.mark.parametrize("chosen", VARIANTS)
def test_rows_without_a_positive_value_have_no_codes(chosen: dict[str, Any], has_bfloat16: bool) -> None:
    state = random_state(50, 6, 5, **chosen)
    state.weights["b_enc"].fill_(-0.1)
    rows = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    rows[3:9] = 0
    assert_steps_agree(state, [torch.zeros(20, 6), rows, torch.zeros(20, 6), rows], [5] * 4, has_bfloat16=has_bfloat16)


@ENGINES
@pytest.mark.parametrize("chosen", VARIANTS)
def test_values_that_jump_between_steps_change_nothing(chosen: dict[str, Any], has_bfloat16: bool) -> None:
    state = random_state(90, 6, 5, **chosen)
    rows = torch.randn(140, 6, generator=torch.Generator().manual_seed(0))
    assert_steps_agree(state, [rows, 1e3 * rows, 1e-3 * rows, rows], [5, 5, 50, 2], has_bfloat16=has_bfloat16)


def test_long_silence_decays_the_means() -> None:
    state = random_state(40, 6, 1, variant="topk")
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(1, 6, generator=generator).expand(3, 6).contiguous()
    batches = [torch.randn(50, 6, generator=generator), *[few] * 8, torch.randn(50, 6, generator=generator)]
    assert_steps_agree(state, batches, [1] * len(batches), has_bfloat16=False)


@pytest.fixture
def use_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda n: monkeypatch.setattr(runtime, "n_threads", lambda: n)


def trained(states: list[SAEState], n_steps: int = 4, *, has_bfloat16: bool = True) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    step = make_step(states, has_bfloat16=has_bfloat16)
    rates = [Rates(6, RATE)] * len(states)
    sums = [step(torch.randn(300, 12, generator=generator), rates, t) for t in range(n_steps)]
    return [{**tensors(state), "sums": sums[-1]} for state in states]


def assert_same_bits(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@ENGINES
@pytest.mark.parametrize("chosen", VARIANTS)
def test_any_number_of_threads_gives_the_same_bits(
    chosen: dict[str, Any], has_bfloat16: bool, use_threads: Callable[[int], None]
) -> None:
    results: list[dict[str, Tensor]] = []
    for n_threads in (1, 2, 5):
        use_threads(n_threads)
        results += trained([random_state(200, 12, 6, **chosen)], has_bfloat16=has_bfloat16)
    for result in results[1:]:
        assert_same_bits(result, results[0])


@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_an_sae_is_the_same_alone_and_among_others(n_threads: int, use_threads: Callable[[int], None]) -> None:
    use_threads(n_threads)
    chosen = [(VARIANTS[i % 4], 100 + 50 * (i % 3)) for i in range(6)]
    together = trained([random_state(n, 12, 6, seed=i, **variant) for i, (variant, n) in enumerate(chosen)])
    for i, (variant, n) in enumerate(chosen):
        (alone,) = trained([random_state(n, 12, 6, seed=i, **variant)])
        del alone["sums"]
        assert_same_bits(alone, together[i])


@pytest.mark.parametrize("n_threads", [1, 4])
def test_steps_at_once_are_those_in_turn(n_threads: int, use_threads: Callable[[int], None]) -> None:
    use_threads(n_threads)
    in_turn, at_once = ([random_state(200, 12, 6, seed=i, variant="topk") for i in range(3)] for _ in range(2))
    generator = torch.Generator().manual_seed(5)
    batches = [torch.randn(n, 12, generator=generator) for n in (300, 299, 299)]
    rates = [[Rates(6 - t, RATE)] * 3 for t in range(3)]
    step = make_step(in_turn)
    expected = [step(z, own, t) for t, (z, own) in enumerate(zip(batches, rates, strict=True))]
    assert torch.equal(kernels.make_steps(at_once)(batches, rates, 0), torch.stack(expected))
    for ours, theirs in zip(at_once, in_turn, strict=True):
        assert_same_bits(tensors(ours), tensors(theirs))


def test_several_saes_are_each_trained() -> None:
    one, *others = (random_state(80, 7, 5, seed, variant="topk") for seed in range(3))
    batches = [torch.randn(33, 7, generator=torch.Generator().manual_seed(0))] * 2
    assert_steps_agree(one, batches, [5, 5], *others, has_bfloat16=False)


@pytest.mark.parametrize("at", [0, 40, -1])
@ENGINES
@pytest.mark.parametrize("chosen", VARIANTS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["z", "W_enc", "b_enc", "W_dec", "b_dec"])
def test_what_is_not_finite_reaches_the_sums(
    chosen: dict[str, Any], value: float, where: str, has_bfloat16: bool, at: int
) -> None:
    state = random_state(100, 6, 50, **chosen)
    z = torch.randn(140, 6, generator=torch.Generator().manual_seed(0))
    target = z if where == "z" else state.weights[where]
    target[min(at, len(target) - 1), ...] = value
    step = make_step([state], has_bfloat16=has_bfloat16)
    assert not torch.isfinite(step(z, [Rates(50, RATE)], 0)[0, 0])


@ENGINES
@pytest.mark.parametrize("chosen", VARIANTS)
def test_a_step_follows_one_on_infinite_rows(chosen: dict[str, Any], has_bfloat16: bool) -> None:
    state = random_state(100, 6, 5, **chosen)
    z = torch.randn(140, 6, generator=torch.Generator().manual_seed(0))
    clean = {name: tensor.clone() for name, tensor in tensors(state).items()}
    step = make_step([state], has_bfloat16=has_bfloat16)
    step(torch.full((140, 6), torch.inf), [Rates(5, RATE)], 0)
    for name, tensor in tensors(state).items():
        tensor.copy_(clean[name])
    assert torch.isfinite(step(z, [Rates(5, RATE)], 0)).all()


@pytest.mark.slow
def test_a_process_that_compiles_the_kernels_gives_the_bits_of_one_that_finds_them_compiled(tmp_path: Path) -> None:
    """A run that is killed is resumed by another process."""
    script = """
import torch
from sfnetlab.training.sae.kernels.step import make_steps
from sfnetlab.training.sae.settings import SAESettings
from sfnetlab.training.sae.state import Rates, new_state

generator = torch.Generator().manual_seed(0)
shapes = {"W_enc": (200, 50), "b_enc": (200,), "W_dec": (200, 50), "b_dec": (50,)}
weights = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
state = new_state(SAESettings(variant="topk", n_latents=200, k=6, seed=0), weights, silent_after=100)
steps = make_steps([state], has_bfloat16=False)
steps([torch.randn(300, 50, generator=generator) for _ in range(5)], [[Rates(6, 1e-3)]] * 5, 0)
print([weights[name].numpy().tobytes().hex() for name in shapes])
"""
    first, second = (
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    )
    assert first == second


def test_torch_keeps_its_number_of_threads(use_threads: Callable[[int], None]) -> None:
    use_threads(3)
    before = torch.get_num_threads()
    trained([random_state(200, 12, 6, variant="topk")], 1)
    assert torch.get_num_threads() == before


def test_an_error_in_a_thread_is_raised(use_threads: Callable[[int], None]) -> None:
    use_threads(3)
    step = make_step([random_state(200, 12, 6, variant="topk")])
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError):
        step(torch.randn(500, 13), [Rates(6, RATE)], 0)
    assert torch.get_num_threads() == before


def test_a_variant_without_kernels_is_refused() -> None:
    with pytest.raises(ValueError, match="no kernels"):
        make_step([random_state(20, 5, 3, variant="topk", auxk=0.1)])


# --- products in bfloat16 ---------------------------------------------------------------------------------------------


def selections(state: SAEState, z: Tensor, k: int) -> list[tuple[Tensor, Tensor]]:
    """Which latents were active, and the gradients of b_enc, after one step of each engine from the same state."""
    results: list[tuple[Tensor, Tensor]] = []
    for has_bfloat16 in (False, True):
        clone = copy(state)
        sums = make_step([clone], has_bfloat16=has_bfloat16)(z, [Rates(k, RATE)], 0)
        results.append((torch.cat([clone.last_active, sums[0, 2:].long()]), clone.means["b_enc"]))
    return results


def has_no_tie(state: SAEState, z: Tensor, k: int) -> bool:
    """Whether float32, in whatever order it sums, must select the same latents."""
    pre = torch.relu(z.double() @ state.weights["W_enc"].double().T + state.weights["b_enc"])
    rows = pre.reshape(1, -1) if state.settings.is_batch_wide else pre
    n_kept = k * len(pre) if state.settings.is_batch_wide else k
    ordered = rows.sort(dim=1, descending=True).values
    last, next_one = ordered[:, n_kept - 1], ordered[:, n_kept]
    return bool(((last == 0) | (last - next_one > 3e-6 * ordered[:, 0])).all())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(
    st.sampled_from(VARIANTS),
    st.integers(2, 300),
    st.integers(1, 300),
    st.sampled_from([1e-25, 1e-3, 1.0, 1e3, 1e12]),
    st.sampled_from([0.0, 0.1, 10.0]),
    st.integers(0, 1000),
)
def test_bfloat16_selects_what_float32_does(
    chosen: dict[str, Any], n_latents: int, d_in: int, size: float, bias: float, seed: int
) -> None:
    k = 1 + seed % max(1, n_latents // 3)  # less than n_latents
    state = random_state(n_latents, d_in, k, seed, **chosen)
    state.weights["b_enc"].mul_(10 * bias)
    generator = torch.Generator().manual_seed(seed)
    z = size * torch.randn(140, d_in, generator=generator)
    z[seed % 140] = 0
    assume(has_no_tie(state, z, k))
    (active, gradient), (rough_active, rough_gradient) = selections(state, z, k)
    assert torch.equal(active, rough_active)
    np.testing.assert_allclose(rough_gradient, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("chosen", VARIANTS)
def test_values_closer_than_bfloat16_tells_apart_are_ordered(chosen: dict[str, Any]) -> None:
    """Latents along one direction, each 2^-16 longer than the one before, in mixed order; all are one in bfloat16."""
    n_latents, d_in, k = 128, 33, 9
    state = random_state(n_latents, d_in, k, **chosen)
    order = torch.randperm(n_latents, generator=torch.Generator().manual_seed(0))
    direction = torch.ones(d_in)
    state.weights["W_enc"] = (1 + order[:, None] * 2.0**-16) * direction
    state.weights["b_enc"].zero_()
    z = torch.full((130, d_in), 1 + 2.0**-12)
    for active, _ in selections(state, z, k):
        assert set(order[active[:-1] == 0].tolist()) == set(range(n_latents - k, n_latents))


@ENGINES
def test_a_value_has_the_same_bits_wherever_a_search_starts(has_bfloat16: bool) -> None:
    """Floors are not kept with a checkpoint: training that goes on must not depend on them."""
    state = random_state(300, 70, 6, variant="topk")
    fresh = copy(state)
    generator = torch.Generator().manual_seed(0)
    step = make_step([state], has_bfloat16=has_bfloat16)
    for number in range(6):
        copy_state(state, fresh)
        z = torch.randn(200, 70, generator=generator)
        step(z, [Rates(6, RATE)], number)
        make_step([fresh], has_bfloat16=has_bfloat16)(z, [Rates(6, RATE)], number)
        assert_same_bits(tensors(fresh), tensors(state))
