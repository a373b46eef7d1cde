"""What settings share: the checks of their values, and the targets, training and views that several methods read.

Each kind of survey and of features has its own settings in surveys/ and methods/; what ties them together is schema.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple


class Choices(NamedTuple):
    """The values that a text setting may have, where a registry lists them: `Annotated[str, Choices(...)]`."""

    values: tuple[str, ...]


def is_plain_name(name: str) -> bool:
    """Whether a name is safe as one component of a path."""
    return (
        0 < len(name) <= 100
        and name[0] not in ".-"
        and all(character.isascii() and (character.isalnum() or character in "_-.") for character in name)
    )


def require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


WEIGHT_FILES = (".safetensors", ".ckpt", ".pt", ".pth")
"""Endings of files of weights: safetensors, and PyTorch's checkpoints."""


def is_place(setting: str, value: object) -> bool:
    """Whether a setting's value says where a file is, whose content counts, and not how its path is written."""
    return isinstance(value, Path) or (setting == "weights" and str(value).endswith(WEIGHT_FILES))


def require_weights(weights: str, names: tuple[str, ...]) -> None:
    known = ", ".join(f'"{name}"' for name in names)
    require(
        weights in names or weights.endswith(WEIGHT_FILES),
        f"weights must be {known} or a {' or '.join(WEIGHT_FILES)} file, got {weights!r}",
    )


def require_convention(backbone: str, weights: str) -> None:
    """That a backbone's name says what images its weights expect; see models/conventions.py."""
    on_hub = backbone.startswith(("hf_hub:", "hf-hub:"))
    require(
        on_hub == (weights == "hub"),
        f'weights = "hub" are those of a backbone "hf_hub:owner/name", and it has no others; '
        f"got backbone = {backbone!r}, weights = {weights!r}",
    )
    is_told, is_file = backbone.startswith(("zoobot:", "timm:")), weights.endswith(WEIGHT_FILES)
    require(
        is_file or not is_told,
        f'backbones "zoobot:..." and "timm:..." are for weights in a file, got weights = {weights!r}',
    )
    require(
        is_told or not is_file or weights.endswith(".safetensors"),
        f"a checkpoint does not say what images its weights expect: the backbone must, as "
        f'"zoobot:{backbone}" (RGB 0 to 1, 224 px) or "timm:{backbone}" (timm\'s mean and std)',
    )


def require_sweep(k: tuple[int, ...], largest: int, what: str) -> None:
    require(len(k) > 0, "k must hold at least one value")
    require(len(set(k)) == len(k), f"k repeats a value: {list(k)}")
    wrong = [value for value in k if not 1 <= value <= largest]
    require(not wrong, f"k must lie in [1, {largest}] ({what}), got {wrong}")


def require_dictionary(n_latents: int, k: tuple[int, ...], epochs: int, batch_size: int | None) -> None:
    require(n_latents >= 1, f"n_latents must be at least 1, got {n_latents}")
    require_sweep(k, n_latents, "n_latents")
    require(epochs >= 1, f"epochs must be at least 1, got {epochs}")
    require(batch_size is None or batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")


def require_fractions(fractions: tuple[float, ...]) -> None:
    require(
        len(fractions) == 3 and min(fractions) > 0 and abs(sum(fractions) - 1) < 1e-9,
        f"fractions are three positive shares (train, valid, test) that sum to 1, got {list(fractions)}",
    )


def require_sizes(resize: int | None, crop: int | None) -> None:
    for name, value in (("resize", resize), ("crop", crop)):
        require(value is None or value >= 16, f"{name} must be at least 16, got {value}")
    if resize is not None and crop is not None:
        require(crop <= resize, f"crop must be at most resize={resize}, got {crop}")


def require_scale(pixel_scale_arcsec: float | None) -> None:
    require(
        pixel_scale_arcsec is None or pixel_scale_arcsec > 0,
        f"pixel_scale_arcsec must be positive, got {pixel_scale_arcsec}",
    )


@dataclass(frozen=True, kw_only=True)
class CatalogColumns:
    """How the columns of a catalogue are read: what means a missing value, and where positions stand."""

    missing_values: tuple[float, ...] | None = None
    """Numbers that mean "not measured" in every column but ids and positions, such as [-9999, -1]; []: none. Without
    the setting -9999 does, and -99, -99.9, -999 and the like do where no other value of the column goes half as far, in
    magnitudes 99, 99.9, 999 and the like too. missing_values.csv beside the survey counts what was found."""
    ra_column: str | None = None
    """Column of right ascensions, degrees or text such as "12:34:56.7" (hours). Without it the column is found by its
    name: ra, RA, ra_deg, RAJ2000, raMean, ALPHA_J2000, TARGET_RA and the like; the log says which was taken."""
    dec_column: str | None = None
    """Column of declinations, degrees or text such as "-12:34:56.7"; to be given with ra_column."""

    def __post_init__(self) -> None:
        is_whole = (self.ra_column is None) == (self.dec_column is None)
        require(is_whole, "ra_column and dec_column must be given together")
        require(
            self.ra_column is None or self.ra_column != self.dec_column,
            f"ra_column and dec_column are both {self.ra_column!r}",
        )


CutName = Literal["none", "metallicity", "lines"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Catalogue columns to predict together, and the rows on which they mean something."""

    columns: tuple[str, ...]
    """Columns to predict, for example ["oh_p50"] or ["log_N2", "log_Ha", "log_O3", "log_Hb"]."""
    cut: CutName = "none"
    """Row selection: the SFNet paper's "metallicity" or "lines" (surveys/catalog.py), or "none"."""
    max_spreads: float | None = None
    """Rows with a value farther from its column's median than so many robust spreads (1.4826 median absolute
    deviations) are left out, for example 50; None: none is, and values that rule a squared error are named."""
    quantiles: tuple[float, ...] = ()
    """Networks of this target predict these quantiles of its one column, by the pinball loss, for example [0.025, 0.16,
    0.5, 0.84, 0.975]; intervals are calibrated on valid rows. Empty: one value a column, by training.loss."""

    def __post_init__(self) -> None:
        require(len(self.columns) > 0, "columns must name at least one catalogue column")
        require(self.max_spreads is None or self.max_spreads > 1, f"max_spreads must exceed 1, got {self.max_spreads}")
        require(len(set(self.columns)) == len(self.columns), f"columns repeat a name: {list(self.columns)}")
        if self.quantiles:
            levels = list(self.quantiles)
            require(len(self.columns) == 1, f"quantiles are of one column, got {list(self.columns)}")
            require(levels == sorted(set(levels)), f"quantiles must rise, got {levels}")
            is_paired = all(any(abs(q + other - 1) < 1e-9 for other in levels) for q in levels)
            require(
                len(levels) >= 3 and 0.5 in levels and is_paired and levels[0] > 0,
                f"quantiles must be 0.5 and pairs q, 1 - q between 0 and 1, got {levels}",
            )


@dataclass(frozen=True, kw_only=True)
class Training:
    """How every network is trained, sparse or dense, so that they can be compared."""

    weights: str = "random"
    """Where trunks start: "random", "imagenet" (through timm), or a .safetensors file of the timm backbone."""
    epochs: int = 20
    """Passes over the training rows."""
    batch_size: int = 64
    """Galaxies a step."""
    optimizer: Literal["adamw", "ranger"] = "adamw"
    """AdamW, or Lookahead around RAdam (what the SFNet paper calls ranger)."""
    schedule: Literal["one_cycle", "flat_cosine"] = "one_cycle"
    """Learning rate over the run: up and down, or flat for three quarters and then a cosine to zero."""
    learning_rate: float = 1e-3
    """Largest learning rate."""
    weight_decay: float = 0.01
    """Decoupled weight decay of the weights (not of biases and norms)."""
    loss: Literal["rmse", "mse"] = "rmse"
    """Root of the batch's mean squared error, pooled over outputs (the SFNet paper), or without the root."""
    augment: bool = True
    """A random flip and 90-degree rotation for each galaxy and epoch."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """In what convolutions and products of the trunk are multiplied while it is trained; "auto": bfloat16 where the
    hardware multiplies it (CUDA from compute capability 8.0, CPUs with AVX512-BF16 or AMX), else float32. Statistics,
    pooled features, top-k, head, loss and optimiser are in float32, and so is a trained network, wherever it runs."""

    def __post_init__(self) -> None:
        require_weights(self.weights, ("random", "imagenet"))
        require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        require(self.batch_size >= 2, f"batch_size must be at least 2, got {self.batch_size}")
        require(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")


FULL_VIEW = "full"
"""The view that shows cutouts as they are."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What networks are shown of every cutout, while they are trained and ever after; see models/views.py."""

    degrade_to: int | None = None
    """Pixels a side that are left, each the mean of the cutout over its square, areas weighed; None: all."""
    keep_size: bool = True
    """Draw these pixels as large as the squares they are the means of, so that the galaxy keeps its size for the
    network's layers; false: the network gets an image of degrade_to pixels a side."""
    colours: Literal["all", "grey", "red", "green", "blue", "shuffled"] = "all"
    """"grey": the mean of the bands, three times; a band's name: this one, three times; "shuffled": the bands of each
    galaxy in an order of its own."""
    blur_sigma_px: float = 0.0
    """Standard deviation of a Gaussian blur in pixels of the cutout, before it is degraded."""

    def __post_init__(self) -> None:
        require(self.degrade_to is None or self.degrade_to >= 1, f"degrade_to must be positive, got {self.degrade_to}")
        require(self.blur_sigma_px >= 0, f"blur_sigma_px must not be negative, got {self.blur_sigma_px}")
        require(self.keep_size or self.degrade_to is not None, "keep_size = false is for views with degrade_to")


def require_views(views: tuple[str, ...]) -> None:
    require(len(views) > 0, f'views must name one of [views], or "{FULL_VIEW}"')
    require(len(set(views)) == len(views), f"views repeat a name: {list(views)}")


Codes = Literal["topk", "refit", "omp"]
"""How embeddings are encoded in a dictionary: see models/codes.py."""
