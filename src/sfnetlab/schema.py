"""Every setting of an experiment, as frozen dataclasses; the string under a field is its documentation.

`config.py` fills them from TOML. Defaults stand here and nowhere else. Alternatives are told apart by `kind`.
Rules about one table stand in its `__post_init__`; rules between tables stand in `Experiment.__post_init__`.
"""

from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Literal

from sfnetlab.methods import Features
from sfnetlab.methods.contract import Given
from sfnetlab.settings import (
    FULL_VIEW,
    Target,
    Training,
    View,
    is_plain_name,
    require,
    require_fractions,
    require_scale,
    require_sizes,
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
        require(self.n_galaxies >= 10, f"n_galaxies must be at least 10, got {self.n_galaxies}")
        require(self.image_size >= 16, f"image_size must be at least 16, got {self.image_size}")
        require(self.field_arcsec > 0, f"field_arcsec must be positive, got {self.field_arcsec}")


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
        require_sizes(self.resize, self.crop)
        for name in ("fits_stretch", "fits_q"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        require_scale(self.pixel_scale_arcsec)


@dataclass(frozen=True, kw_only=True)
class SDSSSurvey:
    """What `sfnetlab download sdss --to DIR` wrote: a folder survey whose pixel scale is known."""

    kind: Literal["sdss"] = "sdss"
    directory: Path
    """The DIR of the download: catalog.parquet, images/ and download.json."""
    resize: int | None = None
    """Resample every cutout to this side in pixels before cropping."""
    crop: int | None = None
    """Cut out the central square of this side in pixels (the SFNet paper: 160 to 144)."""
    on_bad_image: Literal["error", "drop"] = "drop"
    """What a cutout that could not be had means: leave the galaxy out and record its id, or stop."""

    def __post_init__(self) -> None:
        require_sizes(self.resize, self.crop)


@dataclass(frozen=True, kw_only=True)
class HubSurvey:
    """A dataset with a column of images and one of ids, from the Hugging Face hub or a local folder."""

    kind: Literal["hub"] = "hub"
    dataset: str | None = None
    """Its id on the hub, for example "mwalmsley/gz_euclid" or "mwalmsley/gz2"; this or `directory`."""
    directory: Path | None = None
    """A local folder: of Dataset.save_to_disk or DatasetDict.save_to_disk, or of parquet files."""
    config: str | None = None
    """Which of the dataset's configurations, where it has several, for example "tiny"."""
    revision: str = "main"
    """Commit, tag or branch on the hub. Only a commit stays what it is; the one that was read is in source.json."""
    splits: tuple[str, ...] = ()
    """The dataset's splits to take together, for example ["train"]; empty: all. [split] divides them anew."""
    id_column: str = "id_str"
    """Column of ids, text or integers, unique over the splits."""
    image_column: str = "image"
    """Column of JPEG or PNG cutouts."""
    streaming: bool = False
    """Read parquet files over the network without keeping them: for one pass, it saves the disk space."""
    min_asked: float = 0.5
    """Vote fractions of a question are NaN where fewer than this share of a galaxy's volunteers were asked it
    (surveys/votes.py; Galaxy Zoo: 0.5)."""
    pixel_scale_arcsec: float | None = None
    """Arcseconds a pixel of the original cutouts, if it is the same for all; scale bars need it."""
    resize: int | None = None
    """Resample every cutout to this side in pixels before cropping."""
    crop: int | None = None
    """Cut out the central square of this side in pixels."""
    on_bad_image: Literal["error", "drop"] = "error"
    """What a missing, truncated or unreadable cutout means: stop, or leave the galaxy out and record its id."""

    def __post_init__(self) -> None:
        require((self.dataset is None) != (self.directory is None), "dataset or directory must be given, and not both")
        if self.dataset is None:
            require(self.revision == "main" and not self.streaming, "revision and streaming are for a dataset's id")
        else:
            owner, _, name = self.dataset.rpartition("/")
            require(
                is_plain_name(name) and (not owner or is_plain_name(owner)),
                f'dataset must be an id such as "mwalmsley/gz2" (a folder is survey.directory), got {self.dataset!r}',
            )
        require(len(set(self.splits)) == len(self.splits), f"splits repeat a name: {list(self.splits)}")
        require(self.id_column != self.image_column, f"id_column and image_column are both {self.id_column!r}")
        require(0 <= self.min_asked <= 1, f"min_asked must lie in [0, 1], got {self.min_asked}")
        require_sizes(self.resize, self.crop)
        require_scale(self.pixel_scale_arcsec)


@dataclass(frozen=True, kw_only=True)
class Galaxy10Survey:
    """Galaxy10, ten classes of galaxies from Galaxy Zoo votes, as an HDF5 file; columns `class` and `class_name`."""

    kind: Literal["galaxy10"] = "galaxy10"
    file: Path
    """Galaxy10.h5 or Galaxy10_DECals.h5."""
    variant: Literal["sdss", "decals"]
    """Which Galaxy10: 21,785 galaxies of 69 pixels, or 17,736 of 256. Their classes differ under equal numbers."""
    sha256: str | None = None
    """Of a file of your own in the same form, for example a part of Galaxy10; None: the published file's."""
    resize: int | None = None
    """Resample every cutout to this side in pixels before cropping."""
    crop: int | None = None
    """Cut out the central square of this side in pixels."""

    def __post_init__(self) -> None:
        require(
            self.sha256 is None or (len(self.sha256) == 64 and set(self.sha256) <= set("0123456789abcdef")),
            f"sha256 must be 64 hexadecimal digits in lower case, got {self.sha256!r}",
        )
        require_sizes(self.resize, self.crop)


@dataclass(frozen=True, kw_only=True)
class EmbeddingsSurvey:
    """A catalogue without images, for embeddings that somebody else made: [[features]] of kind "external"."""

    kind: Literal["embeddings"] = "embeddings"
    catalog: Path
    """Catalogue file: .csv, .parquet, .fits."""
    id_column: str = "id_str"
    """Catalogue column by which embeddings are joined; read as text, for 64-bit ids do not survive as floats."""
    without_embedding: Literal["error", "drop"] = "error"
    """What a galaxy that one of the external [[features]] lacks means: stop, or leave it out and record its id."""


Survey = MockSurvey | FolderSurvey | SDSSSurvey | HubSurvey | Galaxy10Survey | EmbeddingsSurvey


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
        require_fractions(self.fractions)
        require(self.neighbour_radius_arcsec >= 0, "neighbour_radius_arcsec must not be negative")


@dataclass(frozen=True, kw_only=True)
class RandomSplit:
    """A random permutation of the rows, as the SFNet paper drew it (seed 256, last 20 % held out)."""

    kind: Literal["random"] = "random"
    seed: int = 256
    """Seed of the permutation."""
    fractions: tuple[float, ...] = (0.7, 0.1, 0.2)
    """Shares of train, valid and test."""

    def __post_init__(self) -> None:
        require_fractions(self.fractions)


Split = HashSplit | RandomSplit


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
        require(len(self.positive) > 0 and len(self.negative) > 0, "positive and negative must name a code each")
        both = sorted(set(self.positive) & set(self.negative))
        require(not both, f"positive and negative share the codes {both}")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Many classes of galaxies to tell apart at once, each a value of a catalogue column, for example Galaxy10's."""

    column: str
    """Column of text or whole numbers; galaxies without a value are left out."""
    values: tuple[str, ...] = ()
    """Which classes, numbers as text, in the order of confusion matrices; empty: every value that occurs."""

    def __post_init__(self) -> None:
        require(len(self.values) != 1, f"values must name at least two classes, got {list(self.values)}")
        require(len(set(self.values)) == len(self.values), f"values repeat a class: {list(self.values)}")


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
        require((self.above is None) != (self.below is None), "above or below must be given, and not both")


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
    test_time_augmentation: bool = False
    """Predict test galaxies also by the mean over the 8 flips and quarter turns of their cutouts, with the head and the
    probes of every network that is trained here, and report what that gains."""

    def __post_init__(self) -> None:
        require(len(self.kinds) > 0, "kinds must name at least one probe")
        require(min(self.budgets, default=1) >= 1, f"budgets must be positive, got {list(self.budgets)}")
        require(self.n_bootstrap >= 100, f"n_bootstrap must be at least 100, got {self.n_bootstrap}")


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
        require(self.n_permutations >= 20, f"n_permutations must be at least 20, got {self.n_permutations}")


@dataclass(frozen=True, kw_only=True)
class AtlasSettings:
    """The feature atlas."""

    names: Path | None = None
    """Your names and notes of features, a .toml file that is only ever read; each atlas holds a names.toml to start
    from. None: features are called by what they go with."""


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
    labels: dict[str, Labels] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    training: Training = Training()
    features: tuple[Features, ...]
    probes: Probes = Probes()
    interpretation: Interpretation = Interpretation()
    rare: dict[str, Rare] = field(default_factory=dict)
    atlas: AtlasSettings = AtlasSettings()

    def __post_init__(self) -> None:
        tables = (self.targets, self.classes, self.labels, self.views, self.rare)
        for label in (self.name, *(name for table in tables for name in table), *(f.name for f in self.features)):
            require(is_plain_name(label), f"names use letters, digits, '_', '-' and '.', got {label!r}")
        require(len(self.targets) > 0, "an experiment needs at least one [targets.<name>]")
        for first, second in combinations(("targets", "classes", "labels"), 2):
            shared = sorted(set(getattr(self, first)) & set(getattr(self, second)))
            require(not shared, f"[{first}] and [{second}] share the names {shared}")
        require(len(self.features) > 0, "an experiment needs at least one [[features]]")
        require(len(self.seeds) > 0, "seeds must name at least one seed")
        require(len(set(self.seeds)) == len(self.seeds), f"seeds repeat: {list(self.seeds)}")
        require(min(self.seeds) >= 0, f"seeds must not be negative, got {list(self.seeds)}")
        names = [f.name for f in self.features]
        repeated = sorted({name for name in names if names.count(name) > 1})
        require(not repeated, f"features repeat a name: {repeated}")
        if isinstance(self.survey, EmbeddingsSurvey):
            seeing = [f"{f.name!r} ({f.kind})" for f in self.features if f.traits.needs_images]
            require(
                not seeing,
                f'survey kind = "embeddings" has no images, which these [[features]] need: {", ".join(seeing)}; '
                'use kind = "external" for embeddings that somebody else made, or a survey with images',
            )
        require(FULL_VIEW not in self.views, f'views: "{FULL_VIEW}" is taken: it shows cutouts as they are')
        given = Given(
            targets=self.targets,
            views=(FULL_VIEW, *self.views),
            embeddings=tuple(f.name for f in self.features if f.traits.can_be_decomposed),
        )
        for feature in self.features:
            feature.check(given)
