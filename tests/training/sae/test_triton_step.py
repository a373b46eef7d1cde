"""On CUDA where there is one; elsewhere the same tests run in Triton's interpreter, in a process of their own."""

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from sfnetlab.training.sae import reference
from sfnetlab.training.sae.settings import SAESettings
from sfnetlab.training.sae.stack import Rates, Stack, new_stack

triton_step = pytest.importorskip("sfnetlab.training.sae.triton_step", reason="no Triton for this platform")

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not IS_INTERPRETED else "cpu"
runs_kernels = pytest.mark.skipif(DEVICE == "cpu" and not IS_INTERPRETED, reason="kernels need CUDA or the interpreter")


def trained_stack(variant: Any, n_latents: int, d_in: int, k: tuple[int, ...], **settings: Any) -> Stack:
    """As after five steps: means, gaps of all lengths, tied or untied weights of no special size."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE)

    n_saes = len(k)
    stack = new_stack(
        [SAESettings(variant=variant, n_latents=n_latents, k=one, seed=0, **settings) for one in k],
        {
            "W_enc": normal(n_saes, n_latents, d_in),
            "b_enc": 0.1 * normal(n_saes, n_latents),
            "W_dec": normalize(normal(n_saes, n_latents, d_in), dim=2),
            "b_dec": 0.1 * normal(n_saes, d_in),
        },
        silent_after=5,
        column_speeds=0.5 + normal(d_in).abs(),
    )
    for mean in stack.means.values():
        mean.copy_(0.01 * normal(*mean.shape))
    for square in stack.mean_squares.values():
        square.copy_(0.01 * normal(*square.shape).square())
        square[..., 1::3] = 0.0  # before a first gradient
    stack.last_active.copy_(torch.randint(-1, 5, (n_saes, n_latents), generator=generator))
    return stack


def clone(stack: Stack) -> Stack:
    parts = {
        name: {key: t.clone() for key, t in getattr(stack, name).items()}
        for name in ("weights", "means", "mean_squares")
    }
    return replace(stack, **parts, last_active=stack.last_active.clone())


def assert_equal(actual: Stack, expected: Stack) -> None:
    for part in ("weights", "means", "mean_squares"):
        torch.testing.assert_close(getattr(actual, part), getattr(expected, part), rtol=1e-4, atol=2e-6)
    assert torch.equal(actual.last_active, expected.last_active)


def rows(n: int, d_in: int, seed: int = 1) -> torch.Tensor:
    z = torch.randn(n, d_in, generator=torch.Generator().manual_seed(seed))
    z[n // 2] = 0
    return z.to(DEVICE)


@runs_kernels
@pytest.mark.parametrize(
    ("arguments", "settings", "n"),
    [
        pytest.param(("topk", 24, 5, (3,)), {}, 4, id="d_in not a power of two"),
        pytest.param(("topk", 7, 3, (7,)), {}, 3, id="k = n_latents"),
        pytest.param(("topk", 1, 1, (1,)), {}, 2, id="one latent, one column"),
        pytest.param(("topk", 9, 4, (1, 5)), {}, 3, id="two SAEs with their own k"),
        pytest.param(("topk", 12, 4, (2,)), {}, 1, id="one row"),
        pytest.param(("topk", 8, 4, (4,)), {}, 13, id="segments over several chunks"),
        pytest.param(("topk", 8, 4, (2,)), {"frozen": "encoder"}, 3, id="frozen encoder"),
        pytest.param(("topk", 8, 4, (2,)), {"frozen": "decoder"}, 3, id="frozen decoder"),
        pytest.param(("topk", 8, 4, (2,)), {"frozen": "both"}, 3, id="both frozen"),
        pytest.param(("batch_topk", 20, 5, (2, 3)), {}, 4, id="batch-wide"),
        pytest.param(("batch_topk", 6, 4, (6,)), {}, 4, id="batch-wide, k = n_latents"),
        pytest.param(("matryoshka", 16, 5, (3, 6)), {"group_sizes": (1, 3, 12)}, 4, id="prefixes"),
        pytest.param(
            ("matryoshka", 10, 5, (3,)),
            {"group_sizes": (4, 6), "selection": "batch_topk"},
            4,
            id="prefixes, batch-wide",
        ),
    ],
)
def test_a_step_is_the_references(
    arguments: tuple[Any, ...], settings: dict[str, Any], n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_step, "CHUNK", 8)
    expected = trained_stack(*arguments, **settings)
    actual = clone(expected)
    z = rows(n, arguments[2])
    rates = [Rates(k, 0.01 * (s + 1)) for s, k in enumerate(arguments[3])]
    sums = triton_step.make_step([actual])(z, rates, 5)
    torch.testing.assert_close(sums, reference.make_step([expected])(z, rates, 5), rtol=1e-4, atol=1e-5)
    assert_equal(actual, expected)


@runs_kernels
def test_steps_from_the_start_are_the_references() -> None:
    fresh = trained_stack("topk", 10, 3, (2,))
    expected = new_stack(fresh.settings, fresh.weights, silent_after=5, column_speeds=fresh.column_speeds)
    actual = clone(expected)
    ours, theirs = triton_step.make_step([actual]), reference.make_step([expected])
    for number in range(3):
        z = rows(2, 3, seed=number)  # few rows: most latents pause
        rates = [Rates(2, 0.1)]
        torch.testing.assert_close(ours(z, rates, number), theirs(z, rates, number), rtol=1e-4, atol=1e-5)
    assert_equal(actual, expected)


@runs_kernels
def test_sums_of_several_stacks_are_in_their_order() -> None:
    stacks = [trained_stack("topk", 6, 3, (1, 2)), trained_stack("batch_topk", 4, 3, (2,))]
    rates = [Rates(1, 0.1), Rates(2, 0.1), Rates(2, 0.2)]
    expected = reference.make_step([clone(stack) for stack in stacks])(rows(3, 3), rates, 5)
    torch.testing.assert_close(triton_step.make_step(stacks)(rows(3, 3), rates, 5), expected, rtol=1e-4, atol=1e-5)


@runs_kernels
@pytest.mark.parametrize("is_batch_wide", [False, True])
@pytest.mark.parametrize("block", [8, 64])
def test_of_equal_values_the_first_are_selected(
    is_batch_wide: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_step, "ROW_BLOCK", block)
    monkeypatch.setattr(triton_step, "SCAN_BLOCK", block)
    n, n_latents, ks = 3, 19, (4, 9)
    pre = torch.randint(-2, 4, (n, len(ks) * n_latents), generator=torch.Generator().manual_seed(2)).float().to(DEVICE)
    pre[1, :n_latents] = -1.0
    select = triton_step._select_batch if is_batch_wide else triton_step._select_each_row
    table = triton_step._upload([Rates(k, 0.1) for k in ks], 0, n, torch.device(DEVICE))
    codes = select(pre, torch.zeros(len(ks), n_latents, device=DEVICE), table, max(ks))
    for s, k in enumerate(ks):
        positive = torch.relu(pre[:, s * n_latents : (s + 1) * n_latents])
        flat = positive.reshape(1, -1) if is_batch_wide else positive
        values, columns = flat.sort(dim=1, descending=True, stable=True)
        n_kept = k * n // len(flat)
        expected = torch.zeros_like(flat).scatter(1, columns[:, :n_kept], values[:, :n_kept]).view_as(positive)
        for row in range(n):
            slots = slice(codes.start[s, row], codes.start[s, row] + codes.count[s, row])
            latents = codes.keys[slots].long() - s * n_latents
            assert torch.equal(latents, expected[row].nonzero()[:, 0])
            assert torch.equal(codes.values[slots], expected[row, latents])
            assert (codes.rows[slots] == row).all()


@runs_kernels
def test_a_bfloat16_product_of_numbers_it_holds_is_exact() -> None:
    stack = trained_stack("topk", 12, 4, (3,))
    stack.weights["W_enc"].mul_(8).round_().div_(8)
    z = rows(3, 4).mul_(8).round_().div_(8)
    other = clone(stack)
    exact = triton_step.make_step([other])(z, [Rates(3, 0.1)], 5)
    assert torch.equal(triton_step.make_step([stack], dtype="bfloat16")(z, [Rates(3, 0.1)], 5), exact)
    assert torch.equal(stack.weights["W_enc"], other.weights["W_enc"])


@runs_kernels
@pytest.mark.parametrize("place", ["z", "W_enc"])
@pytest.mark.parametrize("variant", ["topk", "batch_topk"])
def test_what_is_not_a_number_shows_in_the_sums(place: str, variant: str) -> None:
    stack, z = trained_stack(variant, 5, 3, (2,)), rows(2, 3)
    (z[0] if place == "z" else stack.weights["W_enc"][0, 3])[:] = torch.nan
    assert not triton_step.make_step([stack])(z, [Rates(2, 0.1)], 5)[0, :2].isfinite().any()


def test_other_variants_and_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="no Triton step for variant 'relu'"):
        triton_step.make_step([trained_stack("relu", 4, 3, (2,))])
    stack = trained_stack("topk", 4, 3, (2,))
    stack.means["W_enc"] = stack.means["W_enc"].mT.contiguous().mT
    with pytest.raises(ValueError, match="expected contiguous float32, W_enc is"):
        triton_step.make_step([stack])


@pytest.mark.skipif(IS_INTERPRETED, reason="is in the interpreter")
def test_the_kernels_pass_in_the_interpreter() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]


@pytest.mark.skipif(IS_INTERPRETED, reason="needs the compiler")
@pytest.mark.parametrize(
    "stack",
    [
        pytest.param(trained_stack("matryoshka", 2048, 640, (32,), group_sizes=(64, 192, 1792)), id="rows"),
        pytest.param(trained_stack("batch_topk", 300, 96, (4,), frozen="decoder"), id="batch-wide"),
    ],
)
def test_the_kernels_compile_without_a_gpu(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile
    from triton.runtime.jit import JITFunction

    types = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int32: "*i32", torch.int64: "*i64"}
    compiled = []

    def compile_only(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        given = dict(zip(kernel.arg_names, arguments, strict=False))
        given |= {name: options.pop(name) for name in kernel.arg_names if name in options}
        constants = {parameter.name: given[parameter.name] for parameter in kernel.params if parameter.is_constexpr}
        signature = {
            name: "constexpr"
            if name in constants
            else types[value.dtype]
            if isinstance(value, torch.Tensor)
            else "i32"
            if isinstance(value, int)
            else "fp32"
            for name, value in ((name, given[name]) for name in kernel.arg_names)
        }
        compiled.append(compile(ASTSource(kernel, signature, constants), GPUTarget("cuda", 90, 32), options))

    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(torch, "empty", torch.zeros)  # kernels that do not run leave memory as it was
    triton_step.make_step([stack])(rows(2, stack.weights["b_dec"].shape[1]), [Rates(stack.shape.k, 0.1)], 0)
    assert len(compiled) == (13 if stack.shape.is_batch_wide else 5)
    assert all(kernel.asm["cubin"] for kernel in compiled)
