"""What each backbone expects of its images, as data: a wrong normalisation gives plausible numbers and no error.

All take RGB with black 0 and white 1; the table says what is done from there. Weights are loaded in backbones.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from sfnetlab.errors import DataError

Resampling = Literal["bilinear", "bicubic"]
Pooling = Literal["model", "patch_mean"]


@dataclass(frozen=True, kw_only=True)
class InputConvention:
    """How cutouts become the input of a backbone, and its output becomes features."""

    mean: tuple[float, ...]
    """What is subtracted from each channel, (3,), black 0 and white 1."""
    std: tuple[float, ...]
    """What each channel is then divided by, (3,)."""
    image_size: int | None
    """Side in pixels to which cutouts are resampled; None: they are taken as they come."""
    resampling: Resampling
    """Filter of the resampling, which is antialiased."""
    pooling: Pooling
    """"model": the model's own pooled output; "patch_mean": the mean of the last block's patch tokens."""
    source: str
    """Where this is documented."""


_AS_ZOOBOT: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "image_size": 224, "resampling": "bilinear"}

_ZOOBOT = InputConvention(
    **_AS_ZOOBOT,
    pooling="model",
    source="galaxy-datasets' transforms, by which Zoobot is trained: 224 px, bilinear, float 0 to 1, normalize=False; "
    "mean and std in the encoders' config.json are those of the ImageNet model that they started from, and not used",
)

# The class token is left out, and no LayerNorm is applied: timm calls that of an average-pooling transformer fc_norm
# and applies it after pooling, so that the norm=True of those who published the embeddings does nothing.
_EUCLID_MAE = InputConvention(
    **_AS_ZOOBOT,
    pooling="patch_mean",
    source="pooled_features_block_11 of mwalmsley/euclid_q1_embeddings: the mean over patch tokens of timm's "
    "forward_intermediates(norm=True); published with random flips and crops, so equal only on average",
)

TABLE: dict[str, InputConvention] = {
    "hf_hub:mwalmsley/euclid_encoder_mae_*": _EUCLID_MAE,
    "zoobot_vit_small_patch8_224": _EUCLID_MAE,
    "hf_hub:mwalmsley/*": _ZOOBOT,
    "zoobot:*": _ZOOBOT,
}
"""Conventions by a pattern of the backbone's name; the first that fits holds. `convention_of` has the others."""


def convention_of(name: str, pretrained_cfg: Mapping[str, Any]) -> InputConvention:
    """Return the convention of a backbone: its row of the table, else what its own timm configuration says.

    For models of the hub that are not in the table, cutouts are resampled to the size that the model was trained at.
    For timm's models they are taken as they come, unless a setting says otherwise.

    Parameters
    ----------
    name
        The backbone's name, as `make_backbone` takes it.
    pretrained_cfg
        What timm, or the model's config.json, says about its weights.

    Raises
    ------
    DataError
        If neither the table nor the configuration says what the model was trained with, or it takes one channel.
    """
    name = name.replace("hf-hub:", "hf_hub:", 1)
    if fnmatchcase(name, "*greyscale*"):
        raise DataError(f"backbone {name!r} takes one channel, and cutouts here have three; use its colour version")
    for pattern, convention in TABLE.items():
        if fnmatchcase(name, pattern):
            return convention
    if pretrained_cfg.get("mean") is None or pretrained_cfg.get("std") is None:
        raise DataError(
            f"backbone {name!r}: no configuration says with which mean and std of the channels it was trained; "
            f'name another, or train it here with weights = "target"'
        )
    from_hub = name.startswith("hf_hub:")
    return InputConvention(
        mean=tuple(pretrained_cfg["mean"]),
        std=tuple(pretrained_cfg["std"]),
        image_size=int(pretrained_cfg["input_size"][-1]) if from_hub else None,
        resampling="bicubic" if pretrained_cfg.get("interpolation") == "bicubic" else "bilinear",
        pooling="model",
        source="config.json of the hub's model" if from_hub else "timm's pretrained configuration",
    )
