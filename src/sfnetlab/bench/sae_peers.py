"""SAEs that SAELens and dictionary_learning train on the same rows, so that no verdict hangs on our own optimiser.

Each peer runs in an environment of its own (`uv run --script`), saves a checkpoint in its own format, and is measured
by what our importer reads of it. It trains twice: as its documentation says, and tuned to short runs, with as many rows
a step as ours, b_dec at the rows' mean, and the learning rate that has the smallest FVU on valid rows.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfnetlab import runtime
from sfnetlab.bench import sae_quality
from sfnetlab.bench.compare import Row
from sfnetlab.bench.sae_quality import FVU, NAMES, Quality, reconstruction, train_on
from sfnetlab.errors import ArtifactError, DataError, SfnetlabError
from sfnetlab.metrics.matching import recovery
from sfnetlab.models.foreign import import_sae
from sfnetlab.models.sae import SparseAutoencoder
from sfnetlab.planted import make_planted_dictionary
from sfnetlab.training.sae import recipe
from sfnetlab.training.sae.rows import Rows
from sfnetlab.training.sae.settings import SAESettings, Variant, euclid_groups

RATE = "rows/s"
_SCRIPTS = Path(__file__).parent / "peers"


class PeerError(SfnetlabError):
    """A peer cannot be had, or its training failed."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another library that trains SAEs on the CPU."""

    name: str
    script: Path
    """Trains as peers/peer_job.py says, in an environment that it describes in its first lines."""


PEERS = (
    Peer(name="SAELens", script=_SCRIPTS / "train_sae_lens.py"),
    Peer(name="dictionary_learning", script=_SCRIPTS / "train_dictionary_learning.py"),
)
RATE_FACTORS = (1, 4, 16)
"""Learning rates to choose from when a peer is tuned, as multiples of the one that it recommends."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained."""

    n_train: int = 20_000
    """Of planted rows, as the next two."""
    n_test: int = sae_quality.N_TEST
    d_in: int = 128
    n_latents: int = 512
    """As many atoms are planted."""
    k: int = 16
    """As many atoms are active."""
    epochs: int = 20
    variants: tuple[Variant, ...] = ("topk", "batch_topk", "matryoshka")
    seeds: tuple[int, ...] = (0, 1, 2)

    def settings(self, variant: Variant, seed: int) -> SAESettings:
        """What ours are told; a Matryoshka selects over the batch, as those of the peers do."""
        is_nested = variant == "matryoshka"
        groups = euclid_groups(self.n_latents) if is_nested else ()
        selection = "batch_topk" if is_nested else "topk"
        return SAESettings(
            variant=variant, n_latents=self.n_latents, k=self.k, seed=seed, group_sizes=groups, selection=selection
        )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Rows to decompose."""

    X: NDArray[np.float32]
    train: NDArray[np.intp]
    valid: NDArray[np.intp]
    test: NDArray[np.intp]
    atoms: NDArray[np.float32] | None
    """What was planted; None where nobody knows."""
    label: str


class Trained(NamedTuple):
    """What a training came to."""

    sae: SparseAutoencoder | ArtifactError
    """Or why its checkpoint cannot be read: that of a training which diverged holds NaN."""
    rate: float
    """Train rows that it saw in a second."""


class Recipe(NamedTuple):
    """What a peer is told about its training, beside sizes and seed; the defaults are what it recommends."""

    batch_size: int | None = None
    rate_factor: int = 1
    """Multiplies the recommended learning rate."""
    starts_at_mean: bool = False
    """Whether b_dec starts at the rows' mean."""


def sae_peers(device: str, embeddings: Path | None = None) -> Iterator[Row]:  # noqa: ARG001
    """Yield our measures against each peer's, means over seeds; all on the CPU, whatever the device."""
    plan = Plan()
    yield from rows_of(planted_data(plan) if embeddings is None else read_data(embeddings), plan, PEERS)


def planted_data(plan: Plan) -> Data:
    """Rows with planted atoms; those behind `n_test` test rows, half as many, are valid rows."""
    planted = make_planted_dictionary(
        n_train=plan.n_train,
        n_test=plan.n_test + plan.n_test // 2,
        d_in=plan.d_in,
        n_atoms=plan.n_latents,
        n_active=plan.k,
    )
    train, test, valid = np.split(np.arange(len(planted.X)), [plan.n_train, plan.n_train + plan.n_test])
    label = f"{plan.n_train:,} planted rows x {plan.d_in}"
    return Data(X=planted.X, train=train, valid=valid, test=test, atoms=planted.atoms, label=label)


def read_data(path: Path) -> Data:
    """Return the embeddings of a result's folder with its split, or of a .npy file with a random one of 7 : 1 : 2.

    Raises
    ------
    DataError
        If there are none, or they are no finite table.
    """
    from sfnetlab.artifacts import read_embedding
    from sfnetlab.files import read_array, require_file

    if path.is_dir():
        require_file(path / "rows.parquet", "rows of an embedding")
        rows, values = read_embedding(path)
        split = rows["split"].to_numpy()
        parts = [np.flatnonzero(split == part) for part in ("train", "valid", "test")]
    else:
        values = read_array(require_file(path, "embeddings (.npy)"))
        order = np.random.default_rng(0).permutation(len(values))
        parts = [np.sort(part) for part in np.split(order, [7 * len(order) // 10, 8 * len(order) // 10])]
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating) or not np.isfinite(values).all():
        raise DataError(f"{path}: expected finite embeddings (n, d), found {values.dtype} {values.shape} or NaN in it")
    train, valid, test = parts
    label = f"{len(train):,} rows x {values.shape[1]} of {path.name}"
    return Data(X=np.asarray(values, dtype=np.float32), train=train, valid=valid, test=test, atoms=None, label=label)


def rows_of(data: Data, plan: Plan, peers: Sequence[Peer]) -> Iterator[Row]:
    """Yield a row for each peer, recipe, variant and measure; one row of a peer that fails, with the reason."""
    ours = _train_ours(data, plan)
    our_quality = {key: _measured(trained, data) for key, trained in ours.items()}
    for peer in peers:
        try:
            found = {key: [_measured(each, data) for each in trained] for key, trained in _train_peer(data, plan, peer)}
        except PeerError as error:
            first = [our_quality[plan.variants[0], seed][FVU["topk"]] for seed in plan.seeds]
            yield _row(f"{NAMES[plan.variants[0]]}, not against {peer.name}: {error}", FVU["topk"], first, None)
            continue
        for (remark, variant), theirs in found.items():
            case = (
                f"{NAMES[variant]}, {data.label}, {plan.n_latents} latents, k {plan.k}, {plan.epochs} epochs, "
                f"to {peer.name} {remark}"
            )
            for measure in theirs[0]:
                mine = [our_quality[variant, seed][measure] for seed in plan.seeds]
                yield _row(case, measure, mine, [of_seed[measure] for of_seed in theirs])


def _measured(trained: Trained, data: Data) -> Quality:
    """FVU and L0 of test rows, alive share on train rows, what of planted atoms was found, and rows/s."""
    if isinstance(trained.sae, ArtifactError):
        raise PeerError(f"its checkpoint cannot be read: {trained.sae}")
    found = reconstruction(trained.sae, data.X[data.train], data.X[data.test], ("topk",)) | {RATE: trained.rate}
    if data.atoms is None:
        return found
    recovered = recovery(data.atoms, trained.sae.W_dec.numpy(force=True))
    return found | {sae_quality.MMCS: recovered.mmcs, sae_quality.REC90: recovered.rec90}


def _row(case: str, measure: str, ours: list[float], theirs: list[float] | None) -> Row:
    """Means over seeds; the case names the standard deviations."""
    mine, other = statistics.fmean(ours), None if theirs is None else statistics.fmean(theirs)
    if len(ours) > 1 and theirs is not None:
        spreads = [statistics.stdev(values) for values in (ours, theirs)]
        case += f", mean of {len(ours)} seeds (s.d. {spreads[0]:.2g}, {spreads[1]:.2g})"
    ratio = mine / other if other else None
    threads = runtime.n_threads()
    return Row(
        name="sae-peers", case=case, ours=mine, reference=other, unit=measure, ratio=ratio, threads=threads,
        device="cpu",
    )  # fmt: skip


def _train_ours(data: Data, plan: Plan) -> dict[tuple[Variant, int], Trained]:
    rows, valid = Rows(data.X, data.train), Rows(data.X, data.valid)
    # Kernels are compiled at their first use.
    train_on(rows, valid, [plan.settings(variant, 0) for variant in plan.variants], 1, "cpu")
    trained = {}
    for variant, seed in product(plan.variants, plan.seeds):
        started = perf_counter()
        (sae,) = train_on(rows, valid, [plan.settings(variant, seed)], plan.epochs, "cpu")
        trained[variant, seed] = Trained(sae, plan.epochs * len(rows) / (perf_counter() - started))
    return trained


def _train_peer(data: Data, plan: Plan, peer: Peer) -> Iterator[tuple[tuple[str, Variant], list[Trained]]]:
    """Yield recipe and variant, and a peer's SAEs of them, one a seed. Only the first seed tries all rates."""
    as_ours = recipe.batch_size(len(data.train), plan.epochs)
    tried = [Recipe(as_ours, factor, starts_at_mean=True) for factor in RATE_FACTORS]
    first, *others = plan.seeds
    wanted = [(Recipe(), variant, seed) for variant in plan.variants for seed in plan.seeds]
    wanted += [(each, variant, first) for variant in plan.variants for each in tried]
    trained = dict(zip(wanted, _run(data, plan, peer, wanted), strict=True))
    best: dict[Variant, Recipe] = {}
    for variant in plan.variants:
        fvus = [_valid_fvu(trained[each, variant, first], data) for each in tried]
        best[variant] = tried[fvus.index(min(fvus))]
    again = [(best[variant], variant, seed) for variant in plan.variants for seed in others]
    if again:
        trained |= dict(zip(again, _run(data, plan, peer, again), strict=True))
    for variant in plan.variants:
        tuned = f"tuned ({best[variant].rate_factor} x its rate, batch {as_ours})"
        for remark, told in (("as documented", Recipe()), (tuned, best[variant])):
            yield (remark, variant), [trained[told, variant, seed] for seed in plan.seeds]


def _valid_fvu(trained: Trained, data: Data) -> float:
    if isinstance(trained.sae, ArtifactError):
        return math.inf
    return reconstruction(trained.sae, data.X[data.train], data.X[data.valid], ("topk",))[FVU["topk"]]


def _run(data: Data, plan: Plan, peer: Peer, wanted: Sequence[tuple[Recipe, Variant, int]]) -> list[Trained]:
    """Train in a process of the peer's own, and read its checkpoints."""
    with tempfile.TemporaryDirectory(prefix="sfnetlab-peer-") as place:
        folder = Path(place)
        np.save(folder / "rows.npy", data.X[data.train])
        places = [folder / str(i) for i in range(len(wanted))]
        trainings = [
            {
                "variant": variant,
                "n_latents": plan.n_latents,
                "k": plan.k,
                "group_sizes": list(plan.settings(variant, seed).group_sizes),
                "epochs": plan.epochs,
                "seed": seed,
                **told._asdict(),
                "to": str(to),
            }
            for to, (told, variant, seed) in zip(places, wanted, strict=True)
        ]
        job = {"rows": str(folder / "rows.npy"), "n_threads": runtime.n_threads(), "trainings": trainings}
        (folder / "job.json").write_text(json.dumps(job))
        _call(peer, folder / "job.json")
        try:
            seconds = json.loads((folder / "seconds.json").read_text())
        except (OSError, ValueError) as error:
            raise PeerError(f"it ended well, but did not say how long it took: {error}") from None
        n_seen = plan.epochs * len(data.train)
        return [Trained(_imported(to), n_seen / took) for to, took in zip(places, seconds, strict=True)]


def _imported(place: Path) -> SparseAutoencoder | ArtifactError:
    try:
        return import_sae(place)
    except ArtifactError as error:
        return error


def _call(peer: Peer, job: Path) -> None:
    """Run a peer's script, with the torch and the Python that run here, so that speeds compare libraries alone."""
    # Without what a build adds to its version, such as "+cpu": an index has no such versions.
    torch = metadata.version("torch").partition("+")[0]
    command = ["uv", "run", "--no-project", "--python", sys.executable, "--with", f"torch=={torch}", "--script"]
    try:
        done = subprocess.run(
            [*command, str(peer.script), str(job)],
            cwd=job.parent,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise PeerError(f"uv, which fetches it, cannot be run ({error.strerror}); install uv") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        # uv says what failed and then the cause; of Python's traceback the last line does.
        starts = [i for i, line in enumerate(lines) if line.startswith("error:")]
        said = lines[starts[0] : starts[0] + 2] if starts else lines[-1:]
        raise PeerError(f"it failed with status {done.returncode}: {'; '.join(said) or 'no message'}")


def _environment() -> dict[str, str]:
    n = str(runtime.n_threads())
    # PYTHONPATH would lead it to packages of this environment.
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"OMP_NUM_THREADS": n, "MKL_NUM_THREADS": n, "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
