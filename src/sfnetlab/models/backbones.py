"""Trunks of networks: timm models without their classifier, and what turns cutouts into their input."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sfnetlab.errors import DataError


def make_backbone(name: str, weights: str | Path, seed: int | None, image_size: int | None = None) -> nn.Module:
    """A timm model without its classifier: normalised images (n, 3, height, width) to pooled features (n, n_features).

    Transformers interpolate their position embedding, so that cutouts need not have the size they were trained on.

    Parameters
    ----------
    name
        A timm model name, with or without the tag of its weights ("resnet18", "resnet18.a1_in1k").
    weights
        "random"; "imagenet" (timm's pretrained weights, downloaded once); or the path of a .safetensors file with the
        timm model's own names. Of a file, float16 becomes float32 and the classifier is left out; nothing else may
        be missing or too much.
    seed
        Seed of random weights. Torch's global generator is not touched.
    image_size
        Side in pixels for which a transformer's position embedding is laid out; None takes timm's.

    Raises
    ------
    DataError
        If timm does not know the model, or the weights cannot be had or do not fit; never random weights instead.
    """
    if weights == "random":
        if seed is None:
            raise ValueError('weights = "random" need a seed')
        with _seeded(seed):
            return _create(name, image_size, pretrained=False)
    if weights == "imagenet":
        try:
            return _create(name, image_size, pretrained=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f'weights = "imagenet" needs timm\'s pretrained weights of {name}, which are downloaded once, and that '
                f"failed ({str(error).splitlines()[0]}); connect to the network and run again, or give a .safetensors "
                f"file of this model instead"
            ) from error
    backbone = _create(name, image_size, pretrained=False)
    _load_weights(backbone, Path(weights), name)
    return backbone


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel that a timm model was trained with, black 0 and white 1."""
    import timm

    _require_known(name)
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise DataError(f'timm has no pretrained configuration for {name!r}: use it with weights = "target"')
    return tuple(config.mean), tuple(config.std)


class ImageEncoder(nn.Module):
    """A backbone that takes cutouts as they are stored: uint8 in, pooled features out.

    Parameters
    ----------
    backbone
        From `make_backbone`.
    mean, std
        What each channel is standardised with, black 0 and white 1; kept as buffers `pixel_mean` and `pixel_std`.
    image_size
        Side in pixels to which cutouts are resampled; None takes them as they come.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float], image_size: int | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.image_size = image_size
        self.register_buffer("pixel_mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("pixel_std", torch.tensor(std, dtype=torch.float32))

    @property
    def n_features(self) -> int:
        backbone: Any = self.backbone  # timm's models; some have a layer between their features and the classifier
        return int(getattr(backbone, "head_hidden_size", backbone.num_features))

    def forward(self, images: Tensor) -> Tensor:  # pyrefly: ignore[missing-override-decorator]
        """Pooled features (n, n_features) of cutouts, uint8 (n, height, width, 3).

        Raises
        ------
        ValueError
            If the images are not uint8 with three channels last.
        DataError
            If a transformer's patches do not tile the cutouts.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"expected uint8 images (n, height, width, 3), got {images.dtype} {tuple(images.shape)}")
        # Channels are last already: after the permutation this *is* torch's channels_last layout, without a copy.
        x = ((images / 255 - self.pixel_mean) / self.pixel_std).permute(0, 3, 1, 2)
        if self.image_size is not None and x.shape[2:] != (self.image_size, self.image_size):
            x = interpolate(x, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        self._require_whole_patches(x.shape[2], x.shape[3])
        features: Tensor = self.backbone(x)
        return features

    def _require_whole_patches(self, height: int, width: int) -> None:
        patch_embed = getattr(self.backbone, "patch_embed", None)
        patch = getattr(patch_embed, "patch_size", (1, 1))
        if height % patch[0] or width % patch[1]:
            nearest = max(1, height // patch[0]) * patch[0]
            raise DataError(
                f"cutouts of {height} x {width} px do not divide into this backbone's patches of "
                f"{patch[0]} x {patch[1]} px; set image_size to a multiple of {patch[0]}, for example {nearest}"
            )


def _create(name: str, image_size: int | None, *, pretrained: bool) -> nn.Module:
    import timm

    _require_known(name)
    model: nn.Module
    try:
        size: dict[str, Any] = {} if image_size is None else {"img_size": image_size}
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True, **size)
    except TypeError:  # Only transformers know these arguments; convolutions take any size anyway.
        model = timm.create_model(name, pretrained=pretrained, num_classes=0)
    return model


def _require_known(name: str) -> None:
    import timm

    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; see timm.list_models()"
        raise DataError(f"backbone {name!r}: timm does not know this model{hint}")


@contextmanager
def _seeded(seed: int) -> Generator[None, None, None]:
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


def _load_weights(backbone: nn.Module, path: Path, name: str) -> None:
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not a readable .safetensors file ({error})") from None
    config: Any = backbone.pretrained_cfg
    layers = [config["classifier"]] if isinstance(config["classifier"], str) else config["classifier"] or ()
    found = {key: value for key, value in found.items() if not any(key.startswith(f"{layer}.") for layer in layers)}
    expected = backbone.state_dict()

    shared = [key for key in expected if key in found]
    problems = {
        "missing": [key for key in expected if key not in found],
        "unexpected": [key for key in found if key not in expected],
        "wrong size": [
            f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in shared
            if found[key].shape != expected[key].shape
        ],
        "not finite": [key for key in shared if found[key].is_floating_point() and not found[key].isfinite().all()],
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {_first(keys)}" for what, keys in problems.items() if keys)
        raise DataError(f"{path}: these are not the weights of timm's {name}: {listed}")
    backbone.load_state_dict({key: value.to(expected[key].dtype) for key, value in found.items()})


def _first(keys: Sequence[str], n: int = 4) -> str:
    more = f" and {len(keys) - n} more" if len(keys) > n else ""
    return ", ".join(keys[:n]) + more
