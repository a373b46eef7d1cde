"""Every setting of an experiment, as frozen dataclasses; the string under a field is its documentation.

`config.py` fills them from TOML. Defaults stand here and nowhere else. Alternatives are told apart by `kind`.
Rules about one table stand in its `__post_init__`; rules between tables stand in `Experiment.__post_init__`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from sfnetlab.probes import names_of
from sfnetlab.settings import (
    FULL_VIEW,
    Choices,
    Target,
    Training,
    View,
    is_plain_name,
    require,
    require_convention,
    require_dictionary,
    require_fractions,
    require_scale,
    require_sizes,
    require_sweep,
    require_views,
    require_weights,
)

N_SFNET_FEATURES = 512
"""Pooled features of a ResNet18, the dictionary from which an SFNet picks k for each galaxy."""


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
    views: tuple[str, ...] = (FULL_VIEW,)
    """Through which of [views] it sees cutouts, "full" being as they are; one network each, called <name>-<view>. The
    first is interpreted and compared like any other, the others are held against it."""

    def __post_init__(self) -> None:
        require_sweep(self.k, N_SFNET_FEATURES, "the number of pooled features")
        require_views(self.views)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Dense embeddings of a backbone: the pooled output before its head."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["encoder"] = "encoder"
    backbone: str = "resnet18"
    """A timm model name; a timm model of the Hugging Face hub, "hf_hub:owner/name" (with "@revision" to hold it
    fast), as "hf_hub:mwalmsley/zoobot-encoder-resnet18"; or for weights in a file "zoobot:" or "timm:" and a timm
    name, which says what images they expect."""
    weights: str = "target"
    """"target" (trained here on `target`, without top-k), "imagenet" (timm's), "hub" (of a backbone "hf_hub:..."),
    "random", or a file: .safetensors, .ckpt, .pt, .pth."""
    target: str | None = None
    """Which of [targets] to train on, with weights = "target"."""
    image_size: int | None = None
    """Resample cutouts to this side before the network; None keeps the survey's, but gives models of the hub and of
    Zoobot the size that they were trained at."""
    views: tuple[str, ...] = (FULL_VIEW,)
    """Through which of [views] it sees cutouts, with weights = "target"; one network each, called <name>-<view>. What
    stands on this encoder stands on the first."""

    def __post_init__(self) -> None:
        require_views(self.views)
        require(
            self.weights == "target" or self.views == (FULL_VIEW,),
            f'views are for weights = "target", got weights = {self.weights!r}',
        )
        if self.weights == "target":
            require(self.target is not None, 'target is missing: weights = "target" needs one of [targets]')
            require(self.image_size is None, 'image_size is for pretrained networks, not for weights = "target"')
        else:
            require(self.target is None, f'target is only for weights = "target", got weights = {self.weights!r}')
        require_weights(self.weights, ("target", "imagenet", "hub", "random"))
        require_convention(self.backbone, self.weights)


@dataclass(frozen=True, kw_only=True)
class Zoobot:
    """Pretrained encoder fine-tuned on a target by Zoobot: the strong baseline. Supervised; needs the extra zoobot.

    Defaults of the training are those of Zoobot 2.9, but for the epochs.
    """

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["zoobot"] = "zoobot"
    target: str
    """Which of [targets] it learns to predict."""
    backbone: str = "hf_hub:mwalmsley/zoobot-encoder-convnext_nano"
    """What to start from, named as for kind = "encoder"."""
    weights: str = "hub"
    """Its weights: "hub", "imagenet", "random" or a file, as for kind = "encoder"."""
    image_size: int | None = None
    """Resample cutouts to this side before the network; None: as for kind = "encoder"."""
    training_mode: Literal["full", "head_only"] = "full"
    """Train all weights, or the linear head alone."""
    layer_decay: float = 0.75
    """From each of timm's groups of layers to the one below, learning rates shrink by this factor."""
    epochs: int = 20
    """Passes over the training rows; the epoch with the least loss on valid rows is kept."""
    batch_size: int = 64
    """Galaxies a step."""
    learning_rate: float = 1e-4
    """Constant rate of AdamW for the head."""
    weight_decay: float = 0.05
    """Decoupled weight decay."""
    head_dropout: float = 0.5
    """Share of the pooled features that are hidden from the head in a training step."""
    augment: bool = True
    """A random flip and 90-degree rotation for each galaxy and epoch."""

    def __post_init__(self) -> None:
        require_weights(self.weights, ("imagenet", "hub", "random"))
        require_convention(self.backbone, self.weights)
        require(0 < self.layer_decay <= 1, f"layer_decay must lie in (0, 1], got {self.layer_decay}")
        require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        require(self.batch_size >= 2, f"batch_size must be at least 2, got {self.batch_size}")
        require(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")
        require(0 <= self.head_dropout < 1, f"head_dropout must lie in [0, 1), got {self.head_dropout}")


@dataclass(frozen=True, kw_only=True)
class PCA:
    """Principal components of an encoder's embeddings, fitted on train rows. Unsupervised."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["pca"] = "pca"
    on: str
    """The encoder, or the external embeddings, to decompose."""
    n_components: int = 32
    """Components kept; the probes use the first k of them."""

    def __post_init__(self) -> None:
        require(self.n_components >= 1, f"n_components must be at least 1, got {self.n_components}")


@dataclass(frozen=True, kw_only=True)
class PLS:
    """Partial least squares of an encoder's embeddings on a target, fitted on train rows: PCA's supervised control."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["pls"] = "pls"
    on: str
    """The encoder, or the external embeddings, to decompose."""
    target: str
    """Which of [targets] the components are to covary with."""
    n_components: int = 8
    """Components kept; the probes use the first k of them."""

    def __post_init__(self) -> None:
        require(self.n_components >= 1, f"n_components must be at least 1, got {self.n_components}")


Codes = Literal["topk", "refit", "omp"]


@dataclass(frozen=True, kw_only=True)
class SAE:
    """Sparse autoencoder on an encoder's embeddings, trained on train rows. Unsupervised."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["sae"] = "sae"
    on: str
    """The encoder, or the external embeddings, to decompose."""
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
    """Weight of the auxiliary loss that revives silent latents (Gao et al. 2024: 1/32); 0: they are resampled only,
    those of "archetypal" not at all (see estimators.py)."""
    codes: tuple[Codes, ...] = ("topk",)
    """"topk": what the encoder selects; "refit": least squares on that support; "omp": orthogonal matching pursuit. A
    feature table for each, those of refit and omp called <name>-refit and <name>-omp."""
    epochs: int = 50
    """Passes over the training rows."""
    batch_size: int | None = None
    """Rows a step; None: by the recipe, fewer where there are few rows."""
    learning_rate: float | None = None
    """Peak learning rate; None: by the recipe, from variant, n_latents and rows a step."""

    def __post_init__(self) -> None:
        require_dictionary(self.n_latents, self.k, self.epochs, self.batch_size)
        require(len(set(self.codes)) == len(self.codes) > 0, f"codes must name each kind once, got {list(self.codes)}")
        if self.variant != "matryoshka":
            require(not self.group_sizes, f'group_sizes are for variant = "matryoshka", got {self.variant!r}')
            require(self.selection == "topk", f'selection is for variant = "matryoshka", got {self.variant!r}')
        elif self.group_sizes:
            total = sum(self.group_sizes)
            require(min(self.group_sizes) >= 1, "group_sizes must be positive")
            require(total == self.n_latents, f"group_sizes must sum to n_latents={self.n_latents}, got {total}")
        else:
            require(self.n_latents % 32 == 0, f"n_latents must divide by 32 without group_sizes, got {self.n_latents}")
        require(self.auxk >= 0, f"auxk must not be negative, got {self.auxk}")
        require(self.learning_rate is None or self.learning_rate > 0, "learning_rate must be positive")


@dataclass(frozen=True, kw_only=True)
class NullSAE:
    """Control: a top-k sparse autoencoder of which a part stays random (Sanity Checks for SAEs, arXiv:2602.14111)."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["null_sae"] = "null_sae"
    on: str
    """The encoder, or the external embeddings, to decompose."""
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
    batch_size: int | None = None
    """Rows a step; None: as of kind "sae"."""

    def __post_init__(self) -> None:
        require_dictionary(self.n_latents, self.k, self.epochs, self.batch_size)
        require(len(set(self.codes)) == len(self.codes) > 0, f"codes must name each kind once, got {list(self.codes)}")


@dataclass(frozen=True, kw_only=True)
class VAE:
    """Convolutional autoencoder of the cutouts themselves; its features are the posterior means. Unsupervised."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["vae"] = "vae"
    objective: Literal["elbo", "mmd", "none"] = "elbo"
    """What holds latents to a standard normal: each posterior (Kingma & Welling 2014), all of them together (InfoVAE,
    Zhao et al. 2019), or nothing (a plain autoencoder, the control)."""
    n_latents: int = 20
    """Latent dimensions."""
    pixel_variance: float | None = None
    """Variance of pixels about their reconstruction, black 0 and white 1; the smaller, the less the prior weighs.
    None: the mean squared error itself, its maximum likelihood (Rybkin et al. 2021); 0.5: plain sums, as
    galaxy-autoencoders."""
    epochs: int = 100
    """Passes over the training rows."""
    batch_size: int = 64
    """Galaxies a step."""
    learning_rate: float = 2e-3
    """Largest learning rate of the one-cycle schedule."""

    def __post_init__(self) -> None:
        require(self.n_latents >= 1, f"n_latents must be at least 1, got {self.n_latents}")
        require(
            self.pixel_variance is None or self.pixel_variance > 0,
            f"pixel_variance must be positive, got {self.pixel_variance}",
        )
        require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        require(self.batch_size >= 2, f"batch_size must be at least 2, got {self.batch_size}")
        require(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")


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
        require(len(self.magnitudes) + len(self.sizes) > 0, "name at least one magnitude or size column")


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Control: no features at all, so that every probe predicts the mean of the training rows."""

    name: str = "mean"
    """Names its results, and its rows in every table."""
    kind: Literal["mean"] = "mean"


IdRepair = Literal["none", "neg_to_minus", "minus_to_neg"]


@dataclass(frozen=True, kw_only=True)
class External:
    """Embeddings or features that somebody else made, joined to the catalogue by id. No image is needed."""

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["external"] = "external"
    path: Path | None = None
    """A .parquet, .npy or .h5/.hdf5 file, a folder of .parquet files or one of `datasets`' `save_to_disk`."""
    dataset: str | None = None
    """Its id on the hub, for example "mwalmsley/euclid_q1_embeddings"; this or `path`."""
    config: str | None = None
    """Which of the dataset's configurations, where it has several."""
    revision: str = "main"
    """Commit, tag or branch on the hub. Only a commit stays what it is; the one that was read is in model.json."""
    splits: tuple[str, ...] = ()
    """The splits of a dataset to take together, for example ["train", "test"]; empty: all."""
    columns: tuple[str, ...] = ()
    """One column of lists (["pooled_features_block_11"]) or numeric ones, patterns too (["feat_pca_*"]), in the order
    of the file; of HDF5 datasets (n, d) or (n,). Not for .npy."""
    id_column: str = "id_str"
    """Column or HDF5 dataset of the ids; read as text."""
    ids: Path | None = None
    """For .npy: its ids in the order of its rows, as .npy, .csv (with `id_column`) or .txt (a line each)."""
    id_repair: IdRepair = "none"
    """Of these ids, to meet the catalogue's: "neg_to_minus" writes "-" for "NEG" (Euclid tiles south of the equator),
    "minus_to_neg" the reverse."""

    def __post_init__(self) -> None:
        require((self.path is None) != (self.dataset is None), "path or dataset must be given, and not both")
        if self.dataset is None:
            require(self.config is None and self.revision == "main", "config and revision are for a dataset's id")
        else:
            owner, _, name = self.dataset.rpartition("/")
            require(
                is_plain_name(name) and (not owner or is_plain_name(owner)),
                f'dataset must be an id such as "mwalmsley/gz2" (a file or folder is path), got {self.dataset!r}',
            )
        is_npy = self.path is not None and self.path.suffix == ".npy"
        require(is_npy or len(self.columns) > 0, "columns must name at least one column of embeddings")
        require(not (is_npy and self.columns), "columns are for tables, but a .npy file has no columns")
        require(is_npy == (self.ids is not None), "ids must name the file of ids of a .npy file, and of no other")
        require(len(set(self.columns)) == len(self.columns), f"columns repeat a name: {list(self.columns)}")


Features = SFNet | Encoder | Zoobot | PCA | PLS | SAE | NullSAE | VAE | Photometry | Mean | External

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


FORMER_TABLES = {"labels": "classes"}
"""Tables that a configuration may still have, and where their settings stand now."""


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
        names = [f.name for f in self.features]
        repeated = sorted({name for name in names if names.count(name) > 1})
        require(not repeated, f"features repeat a name: {repeated}")
        if isinstance(self.survey, EmbeddingsSurvey):
            blind = PCA | PLS | SAE | NullSAE | External | Photometry | Mean
            seeing = [f"{f.name!r} ({f.kind})" for f in self.features if not isinstance(f, blind)]
            require(
                not seeing,
                f'survey kind = "embeddings" has no images, which these [[features]] need: {", ".join(seeing)}; '
                'use kind = "external" for embeddings that somebody else made, or a survey with images',
            )
        encoders = [f.name for f in self.features if isinstance(f, Encoder | Zoobot | External | VAE)]
        require(FULL_VIEW not in self.views, f'views: "{FULL_VIEW}" is taken: it shows cutouts as they are')
        for feature in self.features:
            if isinstance(feature, SFNet | Encoder):
                unknown = sorted({*feature.views} - {*self.views, FULL_VIEW})
                require(
                    not unknown,
                    f"features {feature.name!r}: views must be among {[FULL_VIEW, *self.views]}, got {unknown}",
                )
            if isinstance(feature, SFNet | Encoder | Zoobot | PLS) and feature.target is not None:
                require(
                    feature.target in self.targets,
                    f"features {feature.name!r}: target must be one of {sorted(self.targets)}, got {feature.target!r}",
                )
            if isinstance(feature, Zoobot):
                require(
                    not self.targets[feature.target].quantiles,
                    f"features {feature.name!r}: Zoobot predicts values, so its target must be one without quantiles",
                )
            if isinstance(feature, PCA | PLS | SAE | NullSAE):
                require(
                    feature.on in encoders,
                    f"features {feature.name!r}: on must name an encoder, one of {encoders}, got {feature.on!r}",
                )
