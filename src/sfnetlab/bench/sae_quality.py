"""Quality of trained sparse autoencoders on planted dictionaries, where the truth is known.

The reference is the truth in their place: planted atoms as decoder and encoder, as many active as truly are.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sfnetlab import runtime
from sfnetlab.bench.compare import Row
from sfnetlab.metrics.matching import Dictionary, absorption, recovery, seed_stability, splitting
from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained
from sfnetlab.metrics.sparsity import activation_frequency, dead_fraction, l0
from sfnetlab.models.sae import SparseAutoencoder
from sfnetlab.planted import PlantedDictionary, make_planted_dictionary
from sfnetlab.settings import Codes
from sfnetlab.training.sae.rows import Rows
from sfnetlab.training.sae.settings import SAESettings, Variant, euclid_groups
from sfnetlab.training.sae.trainer import fit_standardisation, train_saes

N_TEST, N_VALID = 8192, 16_384

Quality = dict[str, float]
"""Measure to value."""

FVU: dict[Codes, str] = {"topk": "FVU", "refit": "FVU, codes refit", "omp": "FVU, codes by OMP"}
L0, ALIVE, MMCS, REC90 = "L0", "alive share", "MMCS", "rec90"
NAMES: dict[Variant, str] = {"topk": "top-k", "batch_topk": "BatchTopK", "matryoshka": "Matryoshka of 6"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """SAEs of as many latents as there are atoms and of one k, trained in one pass over the same rows."""

    label: str
    data: Mapping[str, Any] = field(default_factory=dict)
    """Of `make_planted_dictionary`, beside its defaults: 65,536 rows of 512 dimensions, 16 of 2,048 atoms active."""
    variants: tuple[Variant, ...] = ("topk",)
    k: int = 16
    epochs: int = 10
    codes: tuple[Codes, ...] = ("topk",)
    data_seeds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    """Of the SAEs of the first data seed; the others get the first."""

    def settings(self, variant: Variant, n_latents: int, seed: int) -> SAESettings:
        groups = euclid_groups(n_latents) if variant == "matryoshka" else ()
        return SAESettings(variant=variant, n_latents=n_latents, k=self.k, seed=seed, group_sizes=groups)


RUNS = (
    Run(label="planted", codes=tuple(FVU), data_seeds=(0, 1, 2), seeds=(0, 1, 2)),
    Run(
        label="planted",
        variants=("topk", "batch_topk", "matryoshka"),
        k=32,
        epochs=5,
        codes=("topk", "refit"),
        data_seeds=(0, 1, 2),
    ),
    Run(label="10,000 rows", data={"n_train": 10_000}, epochs=50),
    Run(label="d 64, 8 of 256 active", data={"d_in": 64, "n_atoms": 256, "n_active": 8}, k=8),
    Run(label="d 1280", data={"d_in": 1280}, epochs=5),
    Run(label="columns 100 x apart", data={"column_ratio": 100.0}),
    Run(label="correlated atoms", data={"block_size": 4}),
    Run(label="atoms in trees", data={"n_children": 4}, variants=("topk", "matryoshka")),
)
LARGE = Run(label="1,000,000 rows", data={"n_train": 1_000_000}, epochs=2)


def sae_quality(device: str) -> Iterator[Row]:
    """The recipe on planted dictionaries of many kinds; the worst over seeds is what counts."""
    for run in RUNS:
        yield from _rows("sae-quality", run, device)


def sae_quality_large(device: str) -> Iterator[Row]:
    """A million rows: minutes, and about 4 GB."""
    yield from _rows("sae-quality-large", LARGE, device)


def planted_sae(planted: PlantedDictionary) -> SparseAutoencoder:
    """An SAE with the planted atoms: a centred row's products with them, the largest as many as are truly active.

    What an encoder of one product loses even with the right dictionary; with codes "omp" it is next to the noise.
    """
    n_atoms, d_in = planted.atoms.shape
    n_active = int(l0(planted.latents)[0])
    # Of all rows, test rows too: the truth may know its own frequencies.
    usual = torch.from_numpy(planted.latents.mean(axis=0).astype(np.float32))
    atoms = torch.from_numpy(planted.atoms)
    sae = SparseAutoencoder(d_in, n_atoms, n_active).requires_grad_(False)
    sae.mean.copy_(torch.from_numpy(planted.X_train.mean(axis=0, dtype=np.float64)))
    sae.W_enc.copy_(atoms.T)
    sae.W_dec.copy_(atoms)
    # Centring took the usual latents off.
    sae.b_enc.copy_(usual)
    sae.b_dec.copy_(-usual @ atoms)
    return sae


def evaluate(sae: SparseAutoencoder, planted: PlantedDictionary, codes: Sequence[Codes] = tuple(FVU)) -> Quality:
    """How well an SAE of these train rows does, and what of the truth it found.

    Returns
    -------
    dict
        Of the first `N_TEST` test rows "FVU" (about the train rows' means) with each kind of codes, and mean "L0";
        "alive share" of the latents on the train rows, the others being dead; "MMCS" and "rec90" of
        `metrics.matching.recovery`.
    """
    found = recovery(planted.atoms, sae.W_dec.numpy(force=True))
    of_rows = reconstruction(sae, planted.X_train, planted.X_test[:N_TEST], codes)
    return of_rows | {MMCS: found.mmcs, REC90: found.rec90}


def reconstruction(
    sae: SparseAutoencoder, x_train: NDArray[np.float32], x_test: NDArray[np.float32], codes: Sequence[Codes]
) -> Quality:
    """What `evaluate` measures of an SAE without knowing the truth: FVUs, L0 and the alive share."""
    mean = x_train.mean(axis=0, dtype=np.float64)
    latents = {kind: sae.encode_csr(x_test, kind) for kind in codes}
    quality = {
        FVU[kind]: fraction_of_variance_unexplained(x_test, sae.decode_csr(found), mean)
        for kind, found in latents.items()
    }
    return quality | {
        L0: float(l0(latents["topk"]).mean()),
        ALIVE: 1 - dead_fraction(activation_frequency(sae.encode_csr(x_train))),
    }


def train(
    planted: PlantedDictionary, settings: Sequence[SAESettings], epochs: int, device: str, batch_size: int | None = None
) -> list[SparseAutoencoder]:
    """SAEs of the train rows, on the CPU; test rows behind the first `N_TEST` set thresholds.

    `batch_size` None: by the recipe.
    """
    rows = Rows(planted.X, np.arange(planted.n_train))
    valid = Rows(planted.X, np.arange(planted.n_train + N_TEST, len(planted.X)))
    return train_on(rows, valid, settings, epochs, device, batch_size)


def train_on(
    rows: Rows,
    valid: Rows,
    settings: Sequence[SAESettings],
    epochs: int,
    device: str,
    batch_size: int | None = None,
) -> list[SparseAutoencoder]:
    """SAEs of rows, on the CPU; valid rows set thresholds. `batch_size` None: by the recipe."""
    with tempfile.TemporaryDirectory() as folder:
        saes, _ = train_saes(
            rows,
            settings,
            epochs=epochs,
            batch_size=batch_size,
            standardisation=fit_standardisation(rows),
            valid=valid,
            device=device,
            checkpoint=Path(folder) / "checkpoint",
            report=lambda _: None,
        )
    return [sae.cpu() for sae in saes]


def _rows(name: str, run: Run, device: str) -> Iterator[Row]:
    def row(variant: Variant, remark: str, measure: str, ours: float, reference: float) -> Row:
        return Row(
            name=name,
            case=f"{NAMES[variant]}, {run.label}, k {run.k}, {run.epochs} epochs, {remark}",
            ours=ours,
            reference=reference,
            unit=measure,
            ratio=ours / reference if reference else None,
            threads=runtime.n_threads(),
            device=device,
        )

    found: dict[Variant, list[tuple[Quality, Quality]]] = {variant: [] for variant in run.variants}
    for data_seed in run.data_seeds:
        planted = make_planted_dictionary(**run.data, n_test=N_TEST + N_VALID, seed=data_seed)
        truth = evaluate(planted_sae(planted), planted, run.codes) | {L0: run.k}
        seeds = run.seeds if data_seed == run.data_seeds[0] else run.seeds[:1]
        wanted = [(variant, seed) for variant in run.variants for seed in seeds]
        settings = [run.settings(variant, len(planted.atoms), seed) for variant, seed in wanted]
        saes = dict(zip(wanted, train(planted, settings, run.epochs, device), strict=True))
        for (variant, _), sae in saes.items():
            found[variant].append((evaluate(sae, planted, run.codes), truth))
        if len(seeds) > 1:
            for variant in run.variants:
                cosine, chance = _worst_agreement({seed: saes[variant, seed] for seed in seeds})
                yield row(variant, f"worst two of {len(seeds)} seeds, to chance", "matched cosine", cosine, chance)
        if planted.parent is not None:
            faults = {variant: _tree_faults(saes[variant, seeds[0]], planted) for variant in run.variants}
            plain, *others = run.variants
            for variant in others:
                for fault, share in faults[variant].items():
                    yield row(variant, f"to {NAMES[plain]}", fault, share, faults[plain][fault])
    for variant, pairs in found.items():
        remark = f"worst of {len(pairs)}, to planted atoms" if len(pairs) > 1 else "to planted atoms"
        for measure in pairs[0][0]:
            ours, truth = max(((measured[measure], true[measure]) for measured, true in pairs), key=badness(measure))
            yield row(variant, remark, measure, ours, truth)


def badness(measure: str) -> Callable[[tuple[float, float]], float]:
    """A function of a pair (ours, truth) of a measure; its value is largest for the worst pair."""
    if measure == L0:
        return lambda pair: abs(pair[0] - pair[1])
    return (lambda pair: pair[0]) if measure in FVU.values() else (lambda pair: -pair[0])


def _worst_agreement(saes: Mapping[int, SparseAutoencoder]) -> tuple[float, float]:
    """Mean decoder cosine of matched latents, dead ones too, of the two seeds that agree least; and chance for them."""
    table = seed_stability({seed: Dictionary(sae.W_dec.numpy(), sae.W_enc.numpy()) for seed, sae in saes.items()})
    cosines = table.pivot(index=["seed_a", "seed_b"], columns="metric", values="value")
    worst = cosines.loc[cosines["decoder_cosine"].idxmin()]
    return float(worst["decoder_cosine"]), float(worst["decoder_cosine_chance"])


def _tree_faults(sae: SparseAutoencoder, planted: PlantedDictionary) -> Quality:
    """On test rows: how often an active parent's latent is silent, and why; and how many atoms have several latents."""
    assert planted.parent is not None
    test = slice(planted.n_train, planted.n_train + N_TEST)
    codes, W_dec, true_codes = sae.encode_csr(planted.X[test]), sae.W_dec.numpy(), csr_array(planted.latents[test])
    parents = absorption(codes, true_codes, planted.atoms, W_dec, planted.parent)
    parents = parents[parents["n_rows"] > 0]
    absorbed, missed = (float(np.average(parents[name], weights=parents["n_rows"])) for name in ("absorbed", "missed"))
    is_alive = activation_frequency(sae.encode_csr(planted.X_train)) > 0
    n_owners = splitting(planted.atoms, W_dec[is_alive])
    return {"parents absorbed": absorbed, "parents missed": missed, "atoms split": float(np.mean(n_owners > 1))}
