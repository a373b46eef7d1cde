"""Speed and memory of a training step of sparse autoencoders, against the plain loop and against the bound.

The bound is the one dense product that a step cannot do without, of the batch and the encoder.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import product

import torch
from torch import Tensor

from sfnetlab import runtime
from sfnetlab.bench.compare import Row, compare
from sfnetlab.bench.plain_sae import make_plain_step
from sfnetlab.bench.sae_quality import train
from sfnetlab.models.sae import SparseAutoencoder
from sfnetlab.planted import make_planted_dictionary
from sfnetlab.training.sae.settings import SAESettings, euclid_groups
from sfnetlab.training.sae.start import column_speeds, start_weights
from sfnetlab.training.sae.state import Rates, SAEState, new_state
from sfnetlab.training.sae.trainer import choose_steps

LEARNING_RATE = 1e-3
N_ROWS = 16_384
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

    def settings(self) -> SAESettings:
        groups = euclid_groups(self.n_latents) if self.is_matryoshka else ()
        return SAESettings(
            variant="matryoshka" if groups else "topk",
            n_latents=self.n_latents,
            k=self.k,
            seed=0,
            group_sizes=groups,
        )


CASES = (Case(), Case(is_matryoshka=True), Case(d_in=640, k=64, batch_size=256, is_matryoshka=True))
"""The planted dictionary, plain and nested, and the setting of Wu & Walmsley (2025, arXiv:2510.23749)."""
TOGETHER_DATA = {"n_train": 5_000, "d_in": 384, "n_atoms": 1024, "n_active": 8}
TOGETHER_K, TOGETHER_EPOCHS, TOGETHER_BATCH = (8, 16, 32, 64), 20, 256
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
    yield _together_against_in_turn(device)


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
    """By how much a few steps raise the peak memory (MB) of a fresh process: "ours" or "plain loop".

    Both processes have loaded the same libraries before.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_train_and_measure, case, who, device).result()


def _train_and_measure(case: Case, who: str, device: str) -> float:
    z = torch.randn(N_ROWS, case.d_in, device=device)
    if device == "cpu":
        import_module("sfnetlab.training.sae.kernels.step")
    before = runtime.peak_memory_bytes()
    step = {"ours": _our_loop, "plain loop": _plain_loop}[who](case, z, device)
    for i in range(_PEAK_STEPS):
        step(z[i * case.batch_size :][: case.batch_size], i)
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    return (runtime.peak_memory_bytes() - before) / 1e6


def _against_plain(name: str, case: Case, device: str) -> Row:
    z = _standardised_rows(case, device)
    flop = 10 * case.batch_size * case.d_in * case.n_latents
    n_steps = int(min(max(_WINDOW_FLOP / flop, _WINDOW_STEPS[0]), _WINDOW_STEPS[1]))
    ours, reference = (_window(loop(case, z, device), z, case.batch_size, n_steps) for loop in (_our_loop, _plain_loop))
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


def _together_against_in_turn(device: str) -> Row:
    planted = make_planted_dictionary(**TOGETHER_DATA, n_test=0)
    n_latents = len(planted.atoms)
    settings = [
        SAESettings(variant="topk", n_latents=n_latents, k=k, seed=seed) for k, seed in product(TOGETHER_K, (0, 1))
    ]
    results: dict[str, list[SparseAutoencoder]] = {}

    def together() -> None:
        results["together"] = train(planted, settings, TOGETHER_EPOCHS, device, TOGETHER_BATCH)

    def in_turn() -> None:
        results["in turn"] = [
            sae for one in settings for sae in train(planted, [one], TOGETHER_EPOCHS, device, TOGETHER_BATCH)
        ]

    row = compare(
        "sae",
        f"{len(settings)} trained at once against in turn, d {planted.X.shape[1]}, {n_latents} latents, "
        f"k {'-'.join(map(str, TOGETHER_K))} x 2 seeds, batch {TOGETHER_BATCH}",
        "rows/s",
        len(settings) * TOGETHER_EPOCHS * planted.n_train,
        together,
        in_turn,
        device,
    )
    for ours, theirs in zip(results["together"], results["in turn"], strict=True):
        # On a GPU, products of batches may sum in another order than products of one.
        if device == "cpu" and not all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values())):
            raise AssertionError("SAEs trained at once are not those trained in turn")
    return row


def _window(step: Callable[[Tensor, int], Tensor], z: Tensor, batch_size: int, n_steps: int) -> Callable[[], None]:
    """`n_steps` steps on rows drawn anew each time; they go on where the last window ended."""
    rng = torch.Generator().manual_seed(0)
    n_done = 0

    def take(rows: Tensor) -> Tensor:
        # On a CPU as training does it: torch's threads would go on spinning where ours work.
        return z[rows.to(z.device)] if z.device.type != "cpu" else torch.from_numpy(z.numpy()[rows.numpy()])

    def window() -> None:
        nonlocal n_done
        sums = torch.zeros(())
        for _ in range(n_steps):
            sums = step(take(torch.randint(len(z), (batch_size,), generator=rng)), n_done)
            n_done += 1
        if not sums.isfinite().all():  # waits for the device, too
            raise AssertionError("training diverged")

    return window


def _our_loop(case: Case, z: Tensor, device: str) -> Callable[[Tensor, int], Tensor]:
    steps, rates = choose_steps([start(case, z, device)], device), [[Rates(case.k, LEARNING_RATE)]]
    return lambda rows, number: steps([rows], rates, number)


def _plain_loop(case: Case, z: Tensor, device: str) -> Callable[[Tensor, int], Tensor]:
    state = start(case, z, device)
    step = make_plain_step(state.settings, state.weights, state.column_speeds, LEARNING_RATE)
    return lambda rows, _: step(rows)


def start(case: Case, z: Tensor, device: str) -> SAEState:
    """State before the first step on rows z, on the device."""
    settings = case.settings()
    weights = start_weights(settings, lambda positions: z[positions], len(z))
    weights = {name: tensor.to(device) for name, tensor in weights.items()}
    speeds = column_speeds(lambda positions: z[positions], len(z))
    return new_state(settings, weights, silent_after=len(z), column_speeds=speeds)


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
