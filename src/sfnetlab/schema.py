"""Every setting of an experiment, as frozen dataclasses; the string under a field is its documentation.

`config.py` fills them from TOML. Defaults stand here and nowhere else. Alternatives are told apart by `kind`.
Rules about one table stand in its `__post_init__`; rules between tables stand in `Experiment.__post_init__`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from sfnetlab.jobs import MOST_SEEDS
from sfnetlab.methods import Features
from sfnetlab.methods.contract import Given
from sfnetlab.probes import names_of
from sfnetlab.settings import (
    FULL_VIEW,
    Choices,
    Target,
    Training,
    View,
    is_plain_name,
    require,
)
from sfnetlab.surveys import Survey
from sfnetlab.surveys.mock import MockSurvey
from sfnetlab.surveys.split import HashSplit, Split


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Classes of galaxies to tell apart by a catalogue column: two, by `positive` and `negative`, or many at once."""

    column: str
    """For two classes a column of whole numbers, for example "bptclass" (MPA-JHU) or 0 and 1; for many a column of text
    or whole numbers, for example Galaxy10's. Galaxies without a value are left out, and those of other classes."""
    positive: tuple[int, ...] = ()
    """Codes of the class to find, for AGN [4, 5] or with composites [3, 4, 5]."""
    negative: tuple[int, ...] = ()
    """Codes of the others, for star-forming galaxies [1, 2]."""
    values: tuple[str, ...] = ()
    """Which classes of many, numbers as text, in the order of confusion matrices; without these and without codes every
    value that occurs is a class."""

    def __post_init__(self) -> None:
        require(bool(self.positive) == bool(self.negative), "positive and negative must name a code each")
        require(not (self.positive and self.values), "values are for many classes, positive and negative for two")
        both = sorted(set(self.positive) & set(self.negative))
        require(not both, f"positive and negative share the codes {both}")
        require(len(self.values) != 1, f"values must name at least two classes, got {list(self.values)}")
        require(len(set(self.values)) == len(self.values), f"values repeat a class: {list(self.values)}")

    @property
    def are_two(self) -> bool:
        """Whether one class is told from another, by a score, rather than one of many named."""
        return bool(self.positive)


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


ProbeName = Annotated[str, Choices(names_of("values"))]
ClassifierName = Annotated[str, Choices(names_of("two_classes"))]


@dataclass(frozen=True, kw_only=True)
class Probes:
    """The common probes through which every feature table is judged."""

    kinds: tuple[ProbeName, ...] = ("linear", "ridge", "xgboost")
    """Which probes to fit on train rows; ridge's penalty and XGBoost's rounds are chosen on valid rows."""
    classifiers: tuple[ClassifierName, ...] = ("majority", "logistic", "linear_svm", "rbf_svm")
    """Which classifiers to fit for [classes] of two; the penalty is chosen on valid rows, "rbf_svm" fitted to budgets
    only. Of many classes "majority", "logistic" and "knn" are fitted."""
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
    trivial: tuple[str, ...] = (
        "lgm_tot_p50", "modelMag_g - modelMag_r", "modelMag_r - modelMag_i", "petroR50_r",
    )  # fmt: skip
    """What any network sees: mass, colours, size. Where it is asked whether two tables share more than that, these and
    the columns of targets are projected out of the features, as far as they exist: columns, or a difference of two."""
    n_permutations: int = 200
    """Permutations of the galaxies for null distributions."""

    def __post_init__(self) -> None:
        require(self.n_permutations >= 20, f"n_permutations must be at least 20, got {self.n_permutations}")

    def told_by_all(self, targets: Mapping[str, Target]) -> tuple[str, ...]:
        """Return the columns of targets and what is `trivial`: a feature that follows these is no finding by itself."""
        labels = (name for target in targets.values() for name in target.columns)
        return tuple(dict.fromkeys([*labels, *self.trivial]))


@dataclass(frozen=True, kw_only=True)
class AtlasSettings:
    """The feature atlas."""

    names: Path | None = None
    """Your names and notes of features, a .toml file that is only ever read; each atlas holds a names.toml to start
    from. None: features are called by what they go with."""


FORMER_TABLES = {"labels": "classes"}
"""Tables that a configuration may still have, and where their settings stand now."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One TOML file. A relative path in it begins at the folder in which the command runs; `~` and $VARIABLES are
    replaced."""

    name: str
    """Names the results folder."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of everything that is trained; one repetition each."""
    survey: Survey = MockSurvey()
    split: Split = HashSplit()
    targets: dict[str, Target]
    classes: dict[str, Classes] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    training: Training = Training()
    features: tuple[Features, ...]
    probes: Probes = Probes()
    interpretation: Interpretation = Interpretation()
    rare: dict[str, Rare] = field(default_factory=dict)
    atlas: AtlasSettings = AtlasSettings()

    def __post_init__(self) -> None:
        tables = (self.targets, self.classes, self.views, self.rare)
        for label in (self.name, *(name for table in tables for name in table), *(f.name for f in self.features)):
            require(is_plain_name(label), f"names use letters, digits, '_', '-' and '.', got {label!r}")
        require(len(self.targets) > 0, "an experiment needs at least one [targets.<name>]")
        shared = sorted(set(self.targets) & set(self.classes))
        require(not shared, f"[targets] and [classes] share the names {shared}")
        require(len(self.features) > 0, "an experiment needs at least one [[features]]")
        require(len(self.seeds) > 0, "seeds must name at least one seed")
        require(len(set(self.seeds)) == len(self.seeds), f"seeds repeat: {list(self.seeds)}")
        require(min(self.seeds) >= 0, f"seeds must not be negative, got {list(self.seeds)}")
        require(max(self.seeds) < MOST_SEEDS, f"seeds must be below {MOST_SEEDS:,}, got {list(self.seeds)}")
        names = [f.name for f in self.features]
        repeated = sorted({name for name in names if names.count(name) > 1})
        require(not repeated, f"features repeat a name: {repeated}")
        if not self.survey.has_images:
            seeing = [f"{f.name!r} ({f.kind})" for f in self.features if f.traits.needs_images]
            require(
                not seeing,
                f'survey kind = "{self.survey.kind}" has no images, which these [[features]] need: '
                f'{", ".join(seeing)}; use kind = "external" for embeddings that somebody else made, or a survey with '
                "images",
            )
        require(FULL_VIEW not in self.views, f'views: "{FULL_VIEW}" is taken: it shows cutouts as they are')
        given = Given(
            targets=self.targets,
            views=(FULL_VIEW, *self.views),
            embeddings=tuple(f.name for f in self.features if f.traits.can_be_decomposed),
            is_real=self.survey.is_real,
        )
        require(
            bool(given.embeddings) or not self.rare,
            "[rare] needs an encoder, a VAE or external embeddings among the [[features]]: in them outliers are sought",
        )
        for feature in self.features:
            feature.check(given)
