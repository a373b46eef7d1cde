"""Speed and memory of a training step of sparse autoencoders, against the plain loop and against the bound.

The bound is the one dense product that a step cannot do without, of the batch and the encoder.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sfnetlab import runtime
from sfnetlab.bench.compare import Row, compare
from sfnetlab.bench.plain_sae import make_plain_step
from sfnetlab.planted import make_planted_dictionary
from sfnetlab.training.sae.settings import SAESettings, euclid_groups
from sfnetlab.training.sae.stack import Rates, Stack, Step, new_stack

LEARNING_RATE = 1e-3
N_ROWS = 16_384
_N_TOGETHER = 8
_WINDOW_FLOP, _WINDOW_STEPS = 1e11, (4, 40)
"""A window takes as many steps as the dense products of a plain loop need for so much arithmetic, within limits."""
_CALIBRATION_S = 0.1
_PEAK_STEPS = 6


@dataclass(frozen=True)
class Case:
    """Sizes of one comparison."""

    d_in: int = 512
    n_latents: int = 2048
    k: int = 32
    batch_size: int = 1024
    is_matryoshka: bool = False

    @property
    def label(self) -> str:
        kind = "Matryoshka of 6" if self.is_matryoshka else "top-k"
        return f"{kind}, d {self.d_in}, {self.n_latents} latents, k {self.k}, batch {self.batch_size}"

    def settings(self, seed: int = 0) -> SAESettings:
        groups = euclid_groups(self.n_latents) if self.is_matryoshka else ()
        return SAESettings(
            variant="matryoshka" if groups else "topk",
            n_latents=self.n_latents,
            k=self.k,
            seed=seed,
            group_sizes=groups,
        )


CASES = (Case(), Case(is_matryoshka=True), Case(d_in=640, k=64, batch_size=256, is_matryoshka=True))
"""The planted dictionary, plain and nested, and the setting of Wu & Walmsley (2025, arXiv:2510.23749)."""
TOGETHER = Case(batch_size=256)
SCALING = (
    *(Case(n_latents=n) for n in (512, 1024, 2048, 4096, 8192, 16_384, 32_768)),
    *(Case(d_in=d) for d in (64, 256, 1280)),
    *(Case(k=k) for k in (4, 16, 64, 128)),
    *(Case(batch_size=n) for n in (64, 256, 4096)),
)


def sae(device: str) -> Iterator[Row]:
    """Steps against the plain loop's, with peak memory, and eight SAEs in one pass against eight in turn."""
    for case in CASES:
        # After the timing, which fills the kernels' cache on disk: compiling takes memory of its own.
        row = _against_plain("sae", case, device)
        yield replace(row, peak_mb=peak_mb(case, "ours", device), reference_peak_mb=peak_mb(case, "plain loop", device))
    yield _together_against_in_turn(TOGETHER, device)


def scaling(device: str) -> Iterator[Row]:
    """Rates over latents, d, k and batch, one of them at a time."""
    for case in SCALING:
        yield _against_plain("sae-scaling", case, device)


def matrix_product_rate(n_rows: int, d_in: int, n_latents: int, device: str) -> float:
    """Rows a second of the product (n_rows, d_in) x (d_in, n_latents) alone, by torch on the threads it has now."""
    z, W_enc = torch.randn(n_rows, d_in, device=device), torch.randn(n_latents, d_in, device=device)
    pre = torch.empty(n_rows, n_latents, device=device)
    n_products, started = 0, time.perf_counter()
    while True:
        for _ in range(1 if device == "cpu" else 20):
            torch.mm(z, W_enc.T, out=pre)
            n_products += 1
        _wait(device)
        elapsed = time.perf_counter() - started
        if elapsed > _CALIBRATION_S:
            return n_products * n_rows / elapsed


def peak_mb(case: Case, who: str, device: str) -> float:
    """Largest memory (MB) of a fresh process that trains for a few steps: "ours" or "plain loop"."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_train_and_measure, case, who, device).result()


def _train_and_measure(case: Case, who: str, device: str) -> float:
    z = torch.randn(N_ROWS, case.d_in, device=device)
    step = {"ours": _our_loop, "plain loop": _plain_loop}[who]([case.settings()], case, device)
    for i in range(_PEAK_STEPS):
        step(z[i * case.batch_size :][: case.batch_size], i)
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    return _peak_resident_bytes() / 1e6


def _peak_resident_bytes() -> int:
    """Of this process: what `getrusage` says on Linux includes the parent of a process that was just started."""
    status = Path("/proc/self/status")
    if not status.exists():
        return runtime.peak_memory_bytes()
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _against_plain(name: str, case: Case, device: str) -> Row:
    z = _standardised_rows(case, device)
    flop = 10 * case.batch_size * case.d_in * case.n_latents
    n_steps = int(min(max(_WINDOW_FLOP / flop, _WINDOW_STEPS[0]), _WINDOW_STEPS[1]))
    ours, reference = (
        _window(loop([case.settings()], case, device), z, case.batch_size, n_steps) for loop in (_our_loop, _plain_loop)
    )
    return compare(
        name,
        case.label,
        "rows/s",
        n_steps * case.batch_size,
        ours,
        reference,
        device,
        bound=lambda: matrix_product_rate(case.batch_size, case.d_in, case.n_latents, device),
    )


def _together_against_in_turn(case: Case, device: str) -> Row:
    z = _standardised_rows(case, device)
    settings, n_steps = [case.settings(seed) for seed in range(_N_TOGETHER)], 20
    together = _window(_our_loop(settings, case, device), z, case.batch_size, n_steps)
    alone = [_window(_our_loop([one], case, device), z, case.batch_size, n_steps) for one in settings]
    return compare(
        "sae",
        f"{_N_TOGETHER} at once against in turn, {case.label}",
        "rows/s",
        _N_TOGETHER * n_steps * case.batch_size,
        together,
        lambda: [window() for window in alone],
        device,
        bound=lambda: matrix_product_rate(case.batch_size, case.d_in, case.n_latents, device),
    )


def _window(step: Callable[[Tensor, int], Tensor], z: Tensor, batch_size: int, n_steps: int) -> Callable[[], None]:
    """`n_steps` steps on rows drawn anew each time; they go on where the last window ended."""
    rng = torch.Generator().manual_seed(0)
    n_done = 0

    def window() -> None:
        nonlocal n_done
        sums = torch.zeros(())
        for _ in range(n_steps):
            rows = torch.randint(len(z), (batch_size,), generator=rng)
            sums = step(z[rows.to(z.device)], n_done)
            n_done += 1
        if not sums.isfinite().all():  # waits for the device, too
            raise AssertionError("training diverged")

    return window


def _our_loop(settings: Sequence[SAESettings], case: Case, device: str) -> Callable[[Tensor, int], Tensor]:
    started = [_start(one, case.d_in, device) for one in settings]
    if device == "cpu":
        stacks = [_stack([one], [weights]) for one, weights in zip(settings, started, strict=True)]
    else:
        stacks = [_stack(settings, started)]
    step = _make_step(stacks, device)
    rates = [Rates(one.k, LEARNING_RATE) for one in settings]
    return lambda z, number: step(z, rates, number)


def _plain_loop(settings: Sequence[SAESettings], case: Case, device: str) -> Callable[[Tensor, int], Tensor]:
    (one,) = settings
    step = make_plain_step(one, _start(one, case.d_in, device), LEARNING_RATE)
    return lambda z, _: step(z)


def _make_step(stacks: Sequence[Stack], device: str) -> Step:
    if device == "cpu":
        from sfnetlab.training.sae.numba_step import make_step
    elif device.startswith("cuda"):
        from sfnetlab.training.sae.triton_step import make_step
    else:
        from sfnetlab.training.sae.reference import make_step
    return make_step(stacks)


def _stack(settings: Sequence[SAESettings], started: Sequence[dict[str, Tensor]]) -> Stack:
    weights = {name: torch.stack([each[name] for each in started]) for name in started[0]}
    return new_stack(settings, weights, silent_after=N_ROWS)


def _start(settings: SAESettings, d_in: int, device: str) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(settings.seed)
    atoms = normalize(torch.randn(settings.n_latents, d_in, generator=rng)).to(device)
    return {
        "W_enc": atoms.clone(),
        "b_enc": torch.zeros(settings.n_latents, device=device),
        "W_dec": atoms,
        "b_dec": torch.zeros(d_in, device=device),
    }


def _standardised_rows(case: Case, device: str) -> Tensor:
    z = torch.from_numpy(make_planted_dictionary(n_train=N_ROWS, n_test=0, d_in=case.d_in).X)
    z -= z.mean(dim=0)
    z /= z.std()
    return z.to(device)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()
