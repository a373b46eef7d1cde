"""Every setting of an experiment, as frozen dataclasses; the string under a field is its documentation.

`config.py` fills them from TOML. Defaults stand here and nowhere else. Alternatives are told apart by `kind`.
Rules about one table stand in its `__post_init__`; rules between tables stand in `Experiment.__post_init__`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

N_SFNET_FEATURES = 512
"""Pooled features of a ResNet18, the dictionary from which an SFNet picks k for each galaxy."""


def is_plain_name(name: str) -> bool:
    """Whether a name is safe as one component of a path."""
    return (
        0 < len(name) <= 100
        and name[0] not in ".-"
        and all(character.isascii() and (character.isalnum() or character in "_-.") for character in name)
    )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _require_weights(weights: str, names: tuple[str, ...]) -> None:
    known = ", ".join(f'"{name}"' for name in names)
    _require(
        weights in names or weights.endswith(".safetensors"),
        f"weights must be {known} or a .safetensors file, got {weights!r}",
    )


def _require_sweep(k: tuple[int, ...], largest: int, what: str) -> None:
    _require(len(k) > 0, "k must hold at least one value")
    _require(len(set(k)) == len(k), f"k repeats a value: {list(k)}")
    wrong = [value for value in k if not 1 <= value <= largest]
    _require(not wrong, f"k must lie in [1, {largest}] ({what}), got {wrong}")


def _require_dictionary(n_latents: int, k: tuple[int, ...], epochs: int, batch_size: int) -> None:
    _require(n_latents >= 1, f"n_latents must be at least 1, got {n_latents}")
    _require_sweep(k, n_latents, "n_latents")
    _require(epochs >= 1, f"epochs must be at least 1, got {epochs}")
    _require(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")


def _require_fractions(fractions: tuple[float, ...]) -> None:
    _require(
        len(fractions) == 3 and min(fractions) > 0 and abs(sum(fractions) - 1) < 1e-9,
        f"fractions are three positive shares (train, valid, test) that sum to 1, got {list(fractions)}",
    )


@dataclass(frozen=True, kw_only=True)
class MockSurvey:
    """Rendered galaxies with known factors: the embedded default, no download."""

    kind: Literal["mock"] = "mock"
    n_galaxies: int = 4000
    """How many galaxies to draw."""
    image_size: int = 64
    """Side of a cutout in pixels."""
    field_arcsec: float = 38.0
    """Side of a cutout on the sky, in arcseconds (144 px at 0.262 arcsec/px is 37.7)."""
    seed: int = 0
    """Seed of the population and of every galaxy's image."""

    def __post_init__(self) -> None:
        _require(self.n_galaxies >= 10, f"n_galaxies must be at least 10, got {self.n_galaxies}")
        _require(self.image_size >= 16, f"image_size must be at least 16, got {self.image_size}")
        _require(self.field_arcsec > 0, f"field_arcsec must be positive, got {self.field_arcsec}")


@dataclass(frozen=True, kw_only=True)
class FolderSurvey:
    """A catalogue (CSV, parquet or FITS) and a folder of cutouts (JPEG, PNG or FITS) named after its ids."""

    kind: Literal["folder"] = "folder"
    catalog: Path
    """Catalogue file: .csv, .parquet, .fits."""
    images: Path
    """Folder of cutouts, `<id><extension>`."""
    id_column: str = "id_str"
    """Catalogue column that names the cutouts; read as text, for 64-bit ids do not survive as floats."""
    extension: Literal[".jpg", ".jpeg", ".png", ".fits"] = ".jpg"
    """File type of the cutouts."""
    pixel_scale_arcsec: float | None = None
    """Arcseconds a pixel of the original cutouts; scale bars need it."""
    resize: int | None = None
    """Resample every cutout to this side in pixels before cropping."""
    crop: int | None = None
    """Cut out the central square of this side in pixels (the SFNet paper: 160 to 144)."""
    on_bad_image: Literal["error", "drop"] = "error"
    """What a missing, truncated or unreadable cutout means: stop, or leave the galaxy out and record its id."""
    fits_stretch: float = 0.5
    """FITS cutouts only: linear stretch of the Lupton asinh scaling, in units of the pixel values."""
    fits_q: float = 8.0
    """FITS cutouts only: asinh softening of the Lupton scaling."""

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            value = getattr(self, name)
            _require(value is None or value >= 16, f"{name} must be at least 16, got {value}")
        if self.resize is not None and self.crop is not None:
            _require(self.crop <= self.resize, f"crop must be at most resize={self.resize}, got {self.crop}")
        for name in ("fits_stretch", "fits_q"):
            _require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        _require(
            self.pixel_scale_arcsec is None or self.pixel_scale_arcsec > 0,
            f"pixel_scale_arcsec must be positive, got {self.pixel_scale_arcsec}",
        )


Survey = MockSurvey | FolderSurvey


@dataclass(frozen=True, kw_only=True)
class HashSplit:
    """Train, valid or test from a salted hash of the id: stable when galaxies are added or removed."""

    kind: Literal["hash"] = "hash"
    salt: str = "sfnetlab"
    """Another salt is another split."""
    fractions: tuple[float, ...] = (0.7, 0.1, 0.2)
    """Shares of train, valid and test."""
    neighbour_radius_arcsec: float = 38.0
    """Galaxies closer than this on the sky share cutout pixels and fall into one part (0: only equal ids)."""

    def __post_init__(self) -> None:
        _require_fractions(self.fractions)
        _require(self.neighbour_radius_arcsec >= 0, "neighbour_radius_arcsec must not be negative")


@dataclass(frozen=True, kw_only=True)
class RandomSplit:
    """A random permutation of the rows, as the SFNet paper drew it (seed 256, last 20 % held out)."""

    kind: Literal["random"] = "random"
    seed: int = 256
    """Seed of the permutation."""
    fractions: tuple[float, ...] = (0.7, 0.1, 0.2)
    """Shares of train, valid and test."""

    def __post_init__(self) -> None:
        _require_fractions(self.fractions)


Split = HashSplit | RandomSplit

CutName = Literal["none", "metallicity", "lines"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Catalogue columns to predict together, and the rows on which they mean something."""

    columns: tuple[str, ...]
    """Columns to predict, for example ["oh_p50"] or ["log_N2", "log_Ha", "log_O3", "log_Hb"]."""
    cut: CutName = "none"
    """Row selection: the SFNet paper's "metallicity" or "lines" (surveys/catalog.py), or "none"."""

    def __post_init__(self) -> None:
        _require(len(self.columns) > 0, "columns must name at least one catalogue column")
        _require(len(set(self.columns)) == len(self.columns), f"columns repeat a name: {list(self.columns)}")


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Two classes of galaxies to tell apart, by the codes in a catalogue column; other codes are left out."""

    column: str
    """Column of whole numbers, for example "bptclass" (MPA-JHU) or 0 and 1."""
    positive: tuple[int, ...]
    """Codes of the class to find, for AGN [4, 5] or with composites [3, 4, 5]."""
    negative: tuple[int, ...]
    """Codes of the others, for star-forming galaxies [1, 2]."""

    def __post_init__(self) -> None:
        _require(len(self.positive) > 0 and len(self.negative) > 0, "positive and negative must name a code each")
        both = sorted(set(self.positive) & set(self.negative))
        _require(not both, f"positive and negative share the codes {both}")


@dataclass(frozen=True, kw_only=True)
class Rare:
    """Rare galaxies, to see how soon an inspection finds them: those beyond a value of a catalogue column."""

    column: str
    """Numeric column; NaN is not rare."""
    above: float | None = None
    """Galaxies with a greater value are the rare ones; this or `below`."""
    below: float | None = None
    """Galaxies with a smaller value are the rare ones; this or `above`."""

    def __post_init__(self) -> None:
        _require((self.above is None) != (self.below is None), "above or below must be given, and not both")


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

    def __post_init__(self) -> None:
        _require_weights(self.weights, ("random", "imagenet"))
        _require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        _require(self.batch_size >= 2, f"batch_size must be at least 2, got {self.batch_size}")
        _require(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        _require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")


@dataclass(frozen=True, kw_only=True)
class SFNet:
    """Sparse Feature Network: ResNet18, the k largest of 512 pooled features, a linear head. Supervised."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["sfnet"] = "sfnet"
    target: str
    """Which of [targets] it learns to predict."""
    k: tuple[int, ...] = (4,)
    """Features active for each galaxy; one network a value and seed."""

    def __post_init__(self) -> None:
        _require_sweep(self.k, N_SFNET_FEATURES, "the number of pooled features")


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Dense embeddings of a timm backbone: the pooled output before its head."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["encoder"] = "encoder"
    backbone: str = "resnet18"
    """A timm model name."""
    weights: str = "target"
    """"target" (trained here on `target`, without top-k), "imagenet", "random", or a .safetensors file."""
    target: str | None = None
    """Which of [targets] to train on, with weights = "target"."""
    image_size: int | None = None
    """Resample cutouts to this side before the network; None keeps the survey's."""

    def __post_init__(self) -> None:
        if self.weights == "target":
            _require(self.target is not None, 'target is missing: weights = "target" needs one of [targets]')
            _require(self.image_size is None, 'image_size is for pretrained networks, not for weights = "target"')
        else:
            _require(self.target is None, f'target is only for weights = "target", got weights = {self.weights!r}')
        _require_weights(self.weights, ("target", "imagenet", "random"))


@dataclass(frozen=True, kw_only=True)
class PCA:
    """Principal components of an encoder's embeddings, fitted on train rows. Unsupervised."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["pca"] = "pca"
    on: str
    """The encoder whose embeddings to decompose."""
    n_components: int = 32
    """Components kept; the probes use the first k of them."""

    def __post_init__(self) -> None:
        _require(self.n_components >= 1, f"n_components must be at least 1, got {self.n_components}")


@dataclass(frozen=True, kw_only=True)
class PLS:
    """Partial least squares of an encoder's embeddings on a target, fitted on train rows: PCA's supervised control."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["pls"] = "pls"
    on: str
    """The encoder whose embeddings to decompose."""
    target: str
    """Which of [targets] the components are to covary with."""
    n_components: int = 8
    """Components kept; the probes use the first k of them."""

    def __post_init__(self) -> None:
        _require(self.n_components >= 1, f"n_components must be at least 1, got {self.n_components}")


Codes = Literal["topk", "refit", "omp"]


@dataclass(frozen=True, kw_only=True)
class SAE:
    """Sparse autoencoder on an encoder's embeddings, trained on train rows. Unsupervised."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["sae"] = "sae"
    on: str
    """The encoder whose embeddings to decompose."""
    variant: Literal["relu", "topk", "batch_topk", "jumprelu", "matryoshka", "archetypal"] = "topk"
    """Which latents are active, and what the dictionary is; each variant's paper stands in estimators.py."""
    n_latents: int = 2048
    """Size of the dictionary."""
    k: tuple[int, ...] = (32,)
    """Latents active for each galaxy ("relu", "jumprelu", "batch_topk": on average); one SAE a value and seed."""
    group_sizes: tuple[int, ...] = ()
    """Matryoshka groups, summing to n_latents; empty: the Euclid groups, 1/32, 1/32, 1/16, 1/8, 1/4 and 1/2 of it."""
    selection: Literal["topk", "batch_topk"] = "topk"
    """Of Matryoshka: k latents of each row, or k a row on average over a batch, by a threshold after training."""
    start: Literal["random", "centroids"] = "random"
    """Where atoms start: centroids, the same for all seeds, are the control of "archetypal", which starts there too."""
    auxk: float = 0.0
    """Weight of the auxiliary loss that revives silent latents (Gao et al. 2024: 1/32); 0: they are resampled only."""
    codes: tuple[Codes, ...] = ("topk",)
    """"topk": what the encoder selects; "refit": least squares on that support; "omp": orthogonal matching pursuit. A
    feature table for each, those of refit and omp called <name>-refit and <name>-omp."""
    epochs: int = 50
    """Passes over the training rows."""
    batch_size: int = 256
    """Rows a step."""
    learning_rate: float | None = None
    """Peak learning rate; None: by the recipe, from variant and n_latents."""

    def __post_init__(self) -> None:
        _require_dictionary(self.n_latents, self.k, self.epochs, self.batch_size)
        _require(len(set(self.codes)) == len(self.codes) > 0, f"codes must name each kind once, got {list(self.codes)}")
        if self.variant != "matryoshka":
            _require(not self.group_sizes, f'group_sizes are for variant = "matryoshka", got {self.variant!r}')
            _require(self.selection == "topk", f'selection is for variant = "matryoshka", got {self.variant!r}')
        elif self.group_sizes:
            total = sum(self.group_sizes)
            _require(min(self.group_sizes) >= 1, "group_sizes must be positive")
            _require(total == self.n_latents, f"group_sizes must sum to n_latents={self.n_latents}, got {total}")
        else:
            _require(self.n_latents % 32 == 0, f"n_latents must divide by 32 without group_sizes, got {self.n_latents}")
        _require(self.auxk >= 0, f"auxk must not be negative, got {self.auxk}")
        _require(self.learning_rate is None or self.learning_rate > 0, "learning_rate must be positive")


@dataclass(frozen=True, kw_only=True)
class NullSAE:
    """Control: a top-k sparse autoencoder of which a part stays random (Sanity Checks for SAEs, arXiv:2602.14111)."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["null_sae"] = "null_sae"
    on: str
    """The encoder whose embeddings to decompose."""
    arm: Literal["frozen_decoder", "frozen_encoder", "random_dictionary"]
    """What is not trained: the atoms, the encoder, or both (encoder and decoder are then one random dictionary)."""
    n_latents: int = 2048
    """Size of the dictionary."""
    k: tuple[int, ...] = (32,)
    """Latents active for each galaxy; one a value and seed."""
    codes: tuple[Codes, ...] = ("topk",)
    """"topk": what the encoder selects; "refit": least squares on that support; "omp": orthogonal matching pursuit. A
    feature table for each, those of refit and omp called <name>-refit and <name>-omp."""
    epochs: int = 50
    """Passes over the training rows."""
    batch_size: int = 256
    """Rows a step."""

    def __post_init__(self) -> None:
        _require_dictionary(self.n_latents, self.k, self.epochs, self.batch_size)
        _require(len(set(self.codes)) == len(self.codes) > 0, f"codes must name each kind once, got {list(self.codes)}")


@dataclass(frozen=True, kw_only=True)
class Photometry:
    """Control: catalogue magnitudes, the colours between neighbouring bands, and sizes."""

    name: str = "photometry"
    """Names its results, and its rows in every table."""
    kind: Literal["photometry"] = "photometry"
    magnitudes: tuple[str, ...] = ("modelMag_u", "modelMag_g", "modelMag_r", "modelMag_i", "modelMag_z")
    """Magnitude columns in order of wavelength; neighbours make the colours."""
    sizes: tuple[str, ...] = ("petroR50_r", "petroR90_r")
    """Size columns, in arcseconds."""

    def __post_init__(self) -> None:
        _require(len(self.magnitudes) + len(self.sizes) > 0, "name at least one magnitude or size column")


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Control: no features at all, so that every probe predicts the mean of the training rows."""

    name: str = "mean"
    """Names its results, and its rows in every table."""
    kind: Literal["mean"] = "mean"


Features = SFNet | Encoder | PCA | PLS | SAE | NullSAE | Photometry | Mean

ProbeName = Literal["linear", "ridge", "xgboost"]
ClassifierName = Literal["majority", "logistic", "linear_svm", "rbf_svm"]


@dataclass(frozen=True, kw_only=True)
class Probes:
    """The common probes through which every feature table is judged."""

    kinds: tuple[ProbeName, ...] = ("linear", "ridge", "xgboost")
    """Which probes to fit on train rows; ridge's penalty and XGBoost's rounds are chosen on valid rows."""
    classifiers: tuple[ClassifierName, ...] = ("majority", "logistic", "linear_svm", "rbf_svm")
    """Which classifiers to fit for each of [classes]; the penalty is chosen on valid rows, "rbf_svm" fitted to budgets
    only."""
    budgets: tuple[int, ...] = (2, 4, 8)
    """Numbers of features used in all: the first components of a PCA, else the best ones, chosen on train rows."""
    n_bootstrap: int = 1000
    """Resamples of the galaxies for the 95 % intervals."""

    def __post_init__(self) -> None:
        _require(len(self.kinds) > 0, "kinds must name at least one probe")
        _require(min(self.budgets, default=1) >= 1, f"budgets must be positive, got {list(self.budgets)}")
        _require(self.n_bootstrap >= 100, f"n_bootstrap must be at least 100, got {self.n_bootstrap}")


@dataclass(frozen=True, kw_only=True)
class Interpretation:
    """How features are read: which catalogue columns are what. Patterns ("*_fraction") take the columns that exist."""

    morphology: tuple[str, ...] = (
        "*_fraction", "factor_bulge_to_total", "factor_bulge_gr", "factor_disc_gr", "factor_n_arms",
        "factor_arm_strength", "factor_pitch_angle_deg", "factor_bar_strength", "factor_n_clumps",
        "factor_clump_strength", "factor_dust", "factor_disturbance", "factor_agn_fraction",
        "factor_companion_flux_ratio",
    )  # fmt: skip
    """What galaxies look like: features are aligned with these labels."""
    nuisances: tuple[str, ...] = (
        "z", "ra", "dec", "petroMag_r", "petroR50_r", "factor_redshift", "factor_r_mag",
        "factor_effective_radius_arcsec", "factor_axis_ratio", "factor_position_angle_deg",
        "factor_psf_fwhm_arcsec", "factor_sky_noise",
    )  # fmt: skip
    """What a galaxy is not about: distance, apparent size and brightness, inclination, place, seeing."""
    held_fixed: tuple[str, ...] = ("lgm_tot_p50", "modelMag_g - modelMag_r")
    """Partial correlations with a target hold these fixed, where they exist: columns, or a difference of two."""
    n_permutations: int = 200
    """Permutations of the galaxies for null distributions."""

    def __post_init__(self) -> None:
        _require(self.n_permutations >= 20, f"n_permutations must be at least 20, got {self.n_permutations}")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One TOML file."""

    name: str
    """Names the results folder."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of everything that is trained; one repetition each."""
    survey: Survey = MockSurvey()
    split: Split = HashSplit()
    targets: dict[str, Target]
    classes: dict[str, Classes] = field(default_factory=dict)
    training: Training = Training()
    features: tuple[Features, ...]
    probes: Probes = Probes()
    interpretation: Interpretation = Interpretation()
    rare: dict[str, Rare] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label in (self.name, *self.targets, *self.classes, *self.rare, *(f.name for f in self.features)):
            _require(is_plain_name(label), f"names use letters, digits, '_', '-' and '.', got {label!r}")
        _require(len(self.targets) > 0, "an experiment needs at least one [targets.<name>]")
        shared = sorted(set(self.targets) & set(self.classes))
        _require(not shared, f"[targets] and [classes] share the names {shared}")
        _require(len(self.features) > 0, "an experiment needs at least one [[features]]")
        _require(len(self.seeds) > 0, "seeds must name at least one seed")
        _require(len(set(self.seeds)) == len(self.seeds), f"seeds repeat: {list(self.seeds)}")
        _require(min(self.seeds) >= 0, f"seeds must not be negative, got {list(self.seeds)}")
        names = [f.name for f in self.features]
        repeated = sorted({name for name in names if names.count(name) > 1})
        _require(not repeated, f"features repeat a name: {repeated}")
        encoders = [f.name for f in self.features if isinstance(f, Encoder)]
        for feature in self.features:
            if isinstance(feature, SFNet | Encoder | PLS) and feature.target is not None:
                _require(
                    feature.target in self.targets,
                    f"features {feature.name!r}: target must be one of {sorted(self.targets)}, got {feature.target!r}",
                )
            if isinstance(feature, PCA | PLS | SAE | NullSAE):
                _require(
                    feature.on in encoders,
                    f"features {feature.name!r}: on must name an encoder, one of {encoders}, got {feature.on!r}",
                )
