"""Sparse Feature Network: a backbone, the k largest of its pooled features, and a linear head that sees only those."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from sfnetlab.metrics.tables import FeatureMatrix
from sfnetlab.models.backbones import ImageEncoder, make_backbone
from sfnetlab.models.conventions import Resampling
from sfnetlab.models.files import load_state, read_arguments, write_model
from sfnetlab.models.fine_maps import last_map, with_fine_maps
from sfnetlab.models.topk import keep_top_k
from sfnetlab.models.views import ImageView

KIND = "sfnet"


class SparseFeatureNetwork(nn.Module):
    """A network from cutouts to predictions through at most k active features a galaxy; `k=None` is the dense control.

    Pixels and targets are standardised inside: the statistics of the training rows are buffers of the model, which
    `set_statistics` sets.

    Parameters
    ----------
    backbone
        What `make_backbone` returns. A ResNet's pooled features are 0 or more, so that k bounds the non-zeros.
    backbone_name
        timm's name of the backbone, by which `load_network` makes it again.
    n_outputs
        Columns to predict.
    k
        Active features a galaxy; None leaves out the top-k.
    seed
        Seed of the head's weights.
    view
        What the network is shown of a cutout; None: all of it.
    quantiles
        Rising levels, 0.5 among them. With levels, the network predicts these quantiles of one column, which never
        cross; without, it predicts a value for each column. The median is linear in the features, as values are; the
        distance to each next quantile is the softplus of a linear output.
    image_size, resampling
        Side in pixels to which cutouts are resampled, and the filter; None takes cutouts as they come.

    Raises
    ------
    ValueError
        If k is not in [1, n_features], or there are quantiles of several columns or without 0.5.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        backbone_name: str,
        n_outputs: int,
        k: int | None,
        seed: int = 0,
        *,
        view: ImageView | None = None,
        quantiles: Sequence[float] = (),
        image_size: int | None = None,
        resampling: Resampling = "bilinear",
    ) -> None:
        super().__init__()
        self.backbone_name = backbone_name
        self.k = k
        self.quantiles = tuple(quantiles)
        if self.quantiles and (n_outputs != 1 or 0.5 not in self.quantiles):
            raise ValueError(f"quantiles are of one column and hold 0.5, got {n_outputs} columns and {self.quantiles}")
        self.encoder = ImageEncoder(backbone, (0.0,) * 3, (1.0,) * 3, image_size, resampling=resampling, view=view)
        if k is not None and not 1 <= k <= self.n_features:
            raise ValueError(f"k must lie in [1, {self.n_features}] (pooled features of {backbone_name}), got {k}")
        self.head = nn.Linear(self.encoder.n_features, len(self.quantiles) or n_outputs)
        # torch's bound is for n_features inputs, of which only k are not zero. On 1,200 mock galaxies, 4 epochs,
        # two seeds, k = 4: valid RMSE 0.123 dex with this bound, 0.128 at 0.5, 0.135 with torch's, 0.145 from zero.
        bound = self.n_features**-0.5 if k is None else 0.3 * k**-0.5
        nn.init.uniform_(self.head.weight, -bound, bound, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.head.bias)
        self.register_buffer("target_mean", torch.zeros(n_outputs))
        self.register_buffer("target_std", torch.ones(n_outputs))

    @property
    def n_features(self) -> int:
        """Number of pooled features, of which k may be active."""
        return self.encoder.n_features

    def set_statistics(
        self,
        *,
        pixel_mean: NDArray[np.floating],
        pixel_std: NDArray[np.floating],
        target_mean: NDArray[np.floating],
        target_std: NDArray[np.floating],
    ) -> None:
        """Set the mean and standard deviation of channels (3,), black 0 and white 1, and of targets (n_outputs,).

        Those of targets are in label units.
        """
        for buffer, values in (
            (self.encoder.pixel_mean, pixel_mean),
            (self.encoder.pixel_std, pixel_std),
            (self.target_mean, target_mean),
            (self.target_std, target_std),
        ):
            buffer.copy_(torch.as_tensor(values))

    def features(self, images: Tensor) -> Tensor:
        """Return the features that the head sees, (n, n_features), of cutouts, uint8 (n, height, width, 3)."""
        return self._active(self.encoder(images))

    def _active(self, pooled: Tensor) -> Tensor:
        return pooled if self.k is None else keep_top_k(pooled, self.k)

    def activation_maps(self, images: Tensor, feature: int) -> Tensor:
        """Return the last convolutional map of one feature, (n, h, w), on a grid of 5 x 5 cells or more of a ResNet.

        A map shows where on the cutout a feature comes from; its row 0 is the cutout's. It is zero throughout for a
        galaxy in which the feature is not among the k. The feature is the mean of the network's own map, which is every
        second (fourth, eighth) row and column of this one where that is too coarse: see fine_maps.py.

        Raises
        ------
        ValueError
            If there is no such feature, or the backbone does not average a map (a transformer).
        """
        if not 0 <= feature < self.n_features:
            raise ValueError(f"feature must lie in [0, {self.n_features}), got {feature}")
        maps = last_map(with_fine_maps(self.encoder, images[:1]), images)[:, feature]
        active = self.features(images)[:, feature] != 0
        return maps * active[:, None, None]  # a product, for a slice would keep the maps of all features in memory

    def forward(self, images: Tensor) -> Tensor:  # pyrefly: ignore[missing-override-decorator]
        """Return standardised predictions, (n, n_outputs), or (n, n_quantiles) of one column."""
        return self.read_pooled(self.encoder(images))

    def read_pooled(self, pooled: Tensor) -> Tensor:
        """Return standardised predictions, as `forward`, from the encoder's pooled features (n, n_features)."""
        outputs: Tensor = self.head(self._active(pooled))
        return self._rising(outputs) if self.quantiles else outputs

    def _rising(self, outputs: Tensor) -> Tensor:
        """Return quantiles that rise, (n, n_quantiles): the median, and from it step by step outwards."""
        middle = self.quantiles.index(0.5)
        below, median, above = outputs[:, :middle], outputs[:, middle : middle + 1], outputs[:, middle + 1 :]
        down = softplus(below).flip(1).cumsum(1).flip(1)
        return torch.cat([median - down, median, median + softplus(above).cumsum(1)], dim=1)

    def predict(self, images: Tensor) -> Tensor:
        """Return predictions in label units, (n, n_outputs) or (n, n_quantiles)."""
        return self.standardised_to_label(self(images))

    def read_features(self, features: FeatureMatrix) -> NDArray[np.float64]:
        """Return the predictions that the head makes from stored features (n, n_features), in double precision.

        They have the shape and units of those of `predict`.
        """
        weight, bias, mean, std = self._head()
        outputs = np.asarray(features @ weight.T + bias, dtype=np.float64)
        if self.quantiles:
            outputs = self._rising(torch.from_numpy(outputs)).numpy()
        return outputs * std + mean

    def standardised_to_label(self, standardised: Tensor) -> Tensor:
        """Return standardised predictions in label units."""
        return standardised * self.target_std + self.target_mean

    def head_weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the head's weights (n_outputs, n_features) and bias (n_outputs,) in label units.

        Predictions are `features @ weights.T + bias`. For a network of quantiles that is the median, n_outputs being 1.
        """
        weight, bias, mean, std = self._head()
        if self.quantiles:
            middle = self.quantiles.index(0.5)
            weight, bias = weight[middle : middle + 1], bias[middle : middle + 1]
        return weight * std[:, None], bias * std + mean

    def _head(self) -> tuple[NDArray[np.float64], ...]:
        tensors = (self.head.weight, self.head.bias, self.target_mean, self.target_std)
        return tuple(tensor.detach().cpu().numpy().astype(np.float64) for tensor in tensors)


def save_network(directory: Path, network: SparseFeatureNetwork) -> None:
    """Write `model.safetensors` and `model.json` into a directory."""
    view = network.encoder.view
    arguments = {
        "backbone": network.backbone_name,
        "n_outputs": len(network.target_mean),
        "k": network.k,
        "view": None if view is None else view.arguments,
        "quantiles": list(network.quantiles),
        "image_size": network.encoder.image_size,
        "resampling": network.encoder.resampling,
    }
    write_model(directory, KIND, network, arguments)


def load_network(directory: Path) -> SparseFeatureNetwork:
    """Return the network that `save_network` wrote, on the CPU and ready to predict.

    Raises
    ------
    ArtifactError
        If a file is missing or damaged, or does not describe an SFNet in a known format.
    """
    arguments: dict[str, Any] = read_arguments(directory, KIND)
    name, view = arguments["backbone"], arguments["view"]
    network = SparseFeatureNetwork(
        make_backbone(name, "random", 0, arguments["image_size"]),
        name,
        arguments["n_outputs"],
        arguments["k"],
        view=None if view is None else ImageView(**view),
        quantiles=arguments["quantiles"],
        image_size=arguments["image_size"],
        resampling=arguments["resampling"],
    )
    load_state(directory, network)
    return network.eval()
