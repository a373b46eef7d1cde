"""Variational autoencoders of the cutouts themselves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.jobs import Table, TableSpec
from sfnetlab.methods.contract import BLACK, GREEN, ORANGE, PURPLE, SKY, Given, Look, Planner, Reader, Traits, WidthOf
from sfnetlab.methods.readers import identity_of
from sfnetlab.settings import require

if TYPE_CHECKING:
    from sfnetlab.artifacts import SurveyTable


@dataclass(frozen=True, kw_only=True)
class VAE:
    """Convolutional autoencoder of the cutouts themselves; its features are the posterior means. Unsupervised."""

    traits: ClassVar[Traits] = Traits(
        label="VAE",
        noun="latents",
        role="network",
        supervised=False,
        can_be_decomposed=True,
        is_ordered=False,
        is_sparse=False,
        needs_images=True,
        rank=80,
        look=Look(colors=(ORANGE, PURPLE, SKY, GREEN, BLACK), markers=("v", "<", ">", "^"), linestyles=("--", ":")),
    )

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

    def check(self, given: Given) -> None:
        """Refer to nothing else of the experiment."""

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield a table for each seed."""
        for seed in planner.seeds:
            spec = TableSpec(features=self.name, kind=self.kind, k=None, seed=seed)
            vae = VAESpec(vae=self, seed=seed)
            yield Table(spec=spec, job=planner.job("train-vae", spec.name, vae, {"survey": planner.survey}))

    def width(self) -> int:
        """Return the number of latents."""
        return self.n_latents

    def lacking(self, survey: "SurveyTable", width_of: WidthOf) -> Iterator[str]:  # noqa: ARG002
        """Yield what a survey lacks: square cutouts, and a train galaxy for each component of the PCA beside it."""
        n_rows = int((survey.catalog["split"] == "train").sum())
        height, width = survey.cutouts.shape[1:3]
        if height != width:
            yield (
                f"features {self.name!r}: autoencoders flip and turn cutouts, which must be square; these have {width} "
                f"x {height} px: set survey.crop"
            )
        if self.n_latents > n_rows:
            yield f"features {self.name!r}: n_latents must be at most the {n_rows} train rows, got {self.n_latents}"

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return the identity: features are the means of the posterior."""
        return identity_of(inputs)


@dataclass(frozen=True, kw_only=True)
class VAESpec:
    """Train an autoencoder on all train cutouts, and encode every galaxy with it."""

    vae: VAE
    seed: int
