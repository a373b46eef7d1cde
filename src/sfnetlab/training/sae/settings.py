"""What is chosen about one sparse autoencoder, and the sizes that follow from it."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

Variant = Literal["relu", "topk", "batch_topk", "jumprelu", "matryoshka", "archetypal"]
Selection = Literal["topk", "batch_topk"]
Frozen = Literal["none", "decoder", "encoder", "both"]
Start = Literal["random", "centroids"]
Standardize = Literal["one scale", "columns"]
"""What embeddings are divided by before the training: one spread for all columns, or each column by its own."""


@dataclass(frozen=True, kw_only=True)
class SAESettings:
    """What is chosen about one sparse autoencoder. The defaults of the lab stand in the settings of experiments."""

    variant: Variant
    n_latents: int
    k: int
    """Number of active latents a row: exactly for top-k in each row, on average for other variants."""
    seed: int
    """Seed of the start and of the restarts."""
    group_sizes: tuple[int, ...] = ()
    """Sizes of the groups of "matryoshka", which sum to n_latents."""
    selection: Selection = "topk"
    """Which latents of "matryoshka" are active: k of each row, or k a row on average over a batch."""
    learning_rate: float | None = None
    """Peak learning rate; None: by the recipe."""
    auxk: float = 0.0
    """Weight of the auxiliary loss of silent latents (Gao et al. 2024, appendix A.2)."""
    frozen: Frozen = "none"
    """Which part keeps its random start, in the null arms (2602.14111)."""
    start: Start = "random"
    """Where atoms start: random directions, or centroids of the data, the same for every seed."""

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n_latents:
            raise ValueError(f"k must lie in [1, n_latents={self.n_latents}], got {self.k}")
        if self.variant == "matryoshka":
            if not self.group_sizes or min(self.group_sizes) < 1 or sum(self.group_sizes) != self.n_latents:
                raise ValueError(
                    f"group_sizes must be positive and sum to n_latents={self.n_latents}, got {list(self.group_sizes)}"
                )
        elif self.group_sizes:
            raise ValueError(f'group_sizes are for variant "matryoshka", got {self.variant!r}')

        if self.variant == "archetypal" and self.start != "centroids":
            raise ValueError('variant "archetypal" needs start = "centroids": its atoms are mixtures of those')

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Sizes of the nested dictionaries; the last is n_latents, alone where there are no groups."""
        return tuple(accumulate(self.group_sizes)) or (self.n_latents,)

    @property
    def is_batch_wide(self) -> bool:
        """Whether the n k largest values of a batch of n rows are active, in whichever rows they are."""
        return self.variant == "batch_topk" or (self.variant == "matryoshka" and self.selection == "batch_topk")

    @property
    def is_calibrated(self) -> bool:
        """Whether thresholds are set after training, on valid rows, so that k latents are active on average."""
        return self.is_batch_wide or self.variant in ("relu", "jumprelu")

    @property
    def has_kernels(self) -> bool:
        """Whether kernels/ can take its steps: active latents are few from the first step on, and the loss is plain."""
        return self.variant in ("topk", "batch_topk", "matryoshka") and self.auxk == 0


def euclid_groups(n_latents: int) -> tuple[int, ...]:
    """Matryoshka groups of Wu & Walmsley (2025, arXiv:2510.23749): 64, 64, 128, 256, 512, 1024 of 2,048 latents."""
    if n_latents % 32:
        raise ValueError(f"the Euclid groups need n_latents that divides by 32, got {n_latents}")
    return tuple(n_latents // part for part in (32, 32, 16, 8, 4, 2))
