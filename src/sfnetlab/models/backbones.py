"""Trunks of networks: timm models without their classifier, and the encoder that feeds them cutouts.

What each one expects of its input stands in conventions.py.
"""

import hashlib
import json
import pickle
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_weights

from sfnetlab.errors import DataError
from sfnetlab.models.conventions import InputConvention, Pooling, Resampling, convention_of
from sfnetlab.models.views import ImageView
from sfnetlab.runtime import Precision

HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""File names of the weights in a repository of the hub; the first that it has is taken."""
WRAPPERS = ("module.", "model.", "encoder.")
"""What training frameworks put before the names of a backbone's weights."""
ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "zoobot_vit_small_patch8_224": ("vit_small_patch8_224", {"global_pool": "avg"}),
}
"""Models that their authors registered with timm under a name of their own: timm's name and the arguments."""


def make_backbone(name: str, weights: str | Path, seed: int | None, image_size: int | None = None) -> nn.Module:
    """Return a timm model without its classifier.

    It takes normalised images (n, 3, height, width) and gives pooled features (n, n_features). Transformers interpolate
    their position embedding, so that cutouts need not have the size that they were trained on.

    Parameters
    ----------
    name
        A timm model name, with or without the tag of its weights ("resnet18", "resnet18.a1_in1k"); a timm model of
        the Hugging Face hub ("hf_hub:owner/name", "hf_hub:owner/name@revision"); or "zoobot:" or "timm:" and a timm
        model name, which says what images a file's weights expect, see conventions.py.
    weights
        "random"; "imagenet" (timm's pretrained weights) or "hub", downloaded once; or the path of a .safetensors file
        with the timm model's own names, or of a PyTorch checkpoint. Float16 becomes float32 and the classifier is
        left out; nothing else may be missing or too much. If a checkpoint has a "state_dict", that is read. Where names
        begin with "module.", "model." or "encoder.", these tensors are taken, without the prefix, and no others.
    seed
        Seed of random weights. Torch's global generator is not touched.
    image_size
        Side in pixels for which a transformer's position embedding is laid out; None takes the model's own.

    Raises
    ------
    DataError
        If timm does not know the model, or the weights cannot be had, do not fit or were never trained; random weights
        never take their place.
    ValueError
        If random weights have no seed.
    """
    architecture = architecture_of(name)
    if weights == "random":
        if seed is None:
            raise ValueError('weights = "random" need a seed')
        with _seeded(seed):
            return _create(architecture, image_size)
    with _seeded(0):
        backbone = _create(architecture, None if weights == "hub" else image_size)
    start = {key: value.clone() for key, value in backbone.state_dict().items()}
    match weights:
        case "imagenet":
            with _seeded(0):  # what a download leaves out holds its random start, and that is the same then
                backbone = _create_pretrained(architecture, image_size)
            _require_trained(backbone, start, f"timm's {architecture.name}")
        case "hub":
            path = _downloaded(name, HUB_WEIGHTS)
            _load_weights(backbone, path, name)
            _require_trained(backbone, start, f"{name}: {path.name}")
            if image_size is not None and hasattr(backbone, "set_input_size"):
                resizable: Any = backbone
                resizable.set_input_size(img_size=image_size)
        case _:
            _load_weights(backbone, Path(weights), f"timm's {architecture.name}")
            _require_trained(backbone, start, str(weights))
    return backbone


class Architecture(NamedTuple):
    """The timm model that a backbone's name stands for."""

    name: str
    own_name: str
    """The name that its authors gave it; differs from `name` for `ALIASES` only."""
    arguments: Mapping[str, Any]
    """Arguments for the model's constructor."""
    pretrained_cfg: Mapping[str, Any]
    """What timm, or the hub's config.json, says about its weights."""


def architecture_of(name: str) -> Architecture:
    """Return the timm model that a backbone's name stands for; for models of the hub, config.json is downloaded once.

    Raises
    ------
    DataError
        If timm does not know the model, or config.json cannot be had or does not describe one.
    """
    import timm

    arguments: Mapping[str, Any] = {}
    pretrained_cfg: Mapping[str, Any] | None = None
    model = name.removeprefix("zoobot:").removeprefix("timm:")
    if _is_on_hub(name):
        path = _downloaded(name, ("config.json",))
        try:
            config = json.loads(path.read_text())
            model, pretrained_cfg = config["architecture"], config.get("pretrained_cfg", config)
            arguments = config.get("model_args") or {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{name}: config.json is not that of a timm model ({error!r})") from None
    alias, extra = ALIASES.get(model, (model, {}))
    if not timm.is_model(alias):
        near = get_close_matches(alias, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; see timm.list_models()"
        raise DataError(f"backbone {name!r}: timm does not know this model{hint}")
    if pretrained_cfg is None:
        config = timm.get_pretrained_cfg(alias)
        pretrained_cfg = {} if config is None else config.to_dict()
    return Architecture(alias, model, {**extra, **arguments}, pretrained_cfg)


def local_name(name: str) -> str:
    """Return a name by which `make_backbone` makes the same model, for other weights, without the hub.

    Raises
    ------
    DataError
        If a model of the hub has settings that no name stands for, or `architecture_of` raises it.
    """
    architecture = architecture_of(name)
    extra = ALIASES.get(architecture.own_name, ("", {}))[1]
    if architecture.arguments != extra:
        raise DataError(
            f"{name}: config.json changes settings of timm's {architecture.name} (model_args: "
            f"{', '.join(architecture.arguments)}), and such a model can be run here, but not trained on"
        )
    return architecture.own_name


def input_convention(name: str) -> InputConvention:
    """Return the convention of a backbone's input; errors are those of `architecture_of` and `convention_of`."""
    return convention_of(name, architecture_of(name).pretrained_cfg)


class ImageEncoder(nn.Module):
    """A backbone that takes cutouts as they are stored: uint8 in, pooled features out.

    Parameters
    ----------
    backbone
        What `make_backbone` returns.
    mean, std
        What each channel is standardised with, (3,), black 0 and white 1; kept as buffers `pixel_mean` and `pixel_std`.
    image_size
        Side in pixels to which cutouts are resampled; None takes them as they come.
    resampling
        Filter of the resampling, which is antialiased; values stay between black and white.
    pooling
        "model": the backbone's own; "patch_mean": the mean of a transformer's last patch tokens.
    source
        Where mean, std and size come from, for `describe`.
    view
        What the backbone is shown of a cutout; None: all of it.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    precision: Precision
    """In what the backbone multiplies in training mode. In evaluation mode that is float32, so that features do not
    depend on what the machine can do."""

    def __init__(
        self,
        backbone: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        image_size: int | None = None,
        *,
        resampling: Resampling = "bilinear",
        pooling: Pooling = "model",
        source: str = "channel statistics of the survey's train rows",
        view: ImageView | None = None,
    ) -> None:
        super().__init__()
        self.view = view
        self.backbone = backbone
        self.image_size = image_size
        self.resampling = resampling
        self.pooling = pooling
        self.source = source
        self.precision = "float32"
        self.register_buffer("pixel_mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("pixel_std", torch.tensor(std, dtype=torch.float32))

    @property
    def n_features(self) -> int:
        """Number of pooled features."""
        backbone: Any = self.backbone  # timm's models; some have a layer between their features and the classifier
        if self.pooling == "patch_mean":
            return int(backbone.num_features)
        return int(getattr(backbone, "head_hidden_size", backbone.num_features))

    def forward(self, images: Tensor) -> Tensor:  # pyrefly: ignore[missing-override-decorator]
        """Return the pooled features (n, n_features) of cutouts, uint8 (n, height, width, 3).

        Raises
        ------
        ValueError
            If the images are not uint8 with three channels last.
        DataError
            If a transformer's patches do not tile the cutouts.
        """
        x = self.standardised(images)
        if self.training and self.precision == "bfloat16":
            return self._trained_features(x)
        if self.pooling == "model":
            features: Tensor = self.backbone(x)
            return features
        transformer: Any = self.backbone
        (tokens,) = transformer.forward_intermediates(x, indices=1, intermediates_only=True, norm=True)
        pooled: Tensor = tokens.mean(dim=(-2, -1))
        return pooled

    def _trained_features(self, x: Tensor) -> Tensor:
        """Return the model's own pooled features from a trunk in bfloat16; their means over maps are in float32."""
        backbone: Any = self.backbone
        with torch.autocast(x.device.type, torch.bfloat16):
            maps: Tensor = backbone.forward_features(x)
        pooled: Tensor = backbone.forward_head(maps.float())
        return pooled

    def standardised(self, images: Tensor) -> Tensor:
        """Return the backbone's input, float (n, 3, side, side), for cutouts, uint8 (n, height, width, 3).

        Errors are those of `forward`.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"expected uint8 images (n, height, width, 3), got {images.dtype} {tuple(images.shape)}")
        # Channels are last already: after the permutation this *is* torch's channels_last layout, without a copy.
        shown = images if self.view is None else self.view(images)
        x = (shown / 255).permute(0, 3, 1, 2)
        if self.image_size is not None and x.shape[2:] != (self.image_size, self.image_size):
            x = interpolate(x, (self.image_size, self.image_size), mode=self.resampling, antialias=True).clamp(0, 1)
        self._require_whole_patches(x.shape[2], x.shape[3])
        return (x - self.pixel_mean[:, None, None]) / self.pixel_std[:, None, None]

    def describe(self) -> dict[str, Any]:
        """Return how cutouts become features, and a hash of the weights that do it, as plain data."""
        return {
            "input": "RGB, black 0 and white 1, then (x - pixel_mean) / pixel_std",
            "pixel_mean": self.pixel_mean.tolist(),
            "pixel_std": self.pixel_std.tolist(),
            "image_size": self.image_size,
            "resampling": self.resampling,
            "pooling": self.pooling,
            "source": self.source,
            "view": None if self.view is None else self.view.arguments,
            "n_features": self.n_features,
            "n_parameters": sum(parameter.numel() for parameter in self.backbone.parameters()),
            "weights_sha256": weights_sha256(self.backbone),
        }

    def _require_whole_patches(self, height: int, width: int) -> None:
        patch_embed = getattr(self.backbone, "patch_embed", None)
        patch = getattr(patch_embed, "patch_size", (1, 1))
        if height % patch[0] or width % patch[1]:
            nearest = max(1, height // patch[0]) * patch[0]
            raise DataError(
                f"cutouts of {height} x {width} px do not divide into this backbone's patches of "
                f"{patch[0]} x {patch[1]} px; set image_size to a multiple of {patch[0]}, for example {nearest}"
            )


def for_inference(encoder: ImageEncoder) -> ImageEncoder:
    """Return a faster copy of an encoder: each batch norm is folded into the convolution before it, channels are last.

    Features stay what they are but for rounding. That is tried on one image, as a convolution that is listed before a
    batch norm need not run before it. Where the trial fails, or there is no batch norm, the encoder itself is returned.
    """
    folded = deepcopy(encoder)
    folded.backbone.to(memory_format=torch.channels_last)
    if not _fold_batch_norms(folded.backbone):
        return encoder
    side = encoder.image_size or 64
    device = encoder.pixel_mean.device
    image = torch.randint(256, (1, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = encoder(image.to(device)), folded(image.to(device))
    largest = float(expected.abs().max())
    return folded if torch.allclose(expected, found, rtol=1e-4, atol=1e-4 * largest) else encoder


def _fold_batch_norms(module: nn.Module) -> int:
    """Fold batch norms in place and return their number; activations that some of timm's hold are kept."""
    n_folded = 0
    for parent in module.modules():
        for (_, layer), (name, norm) in pairwise(list(parent.named_children())):
            if not (isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
                continue
            mean, variance = norm.running_mean, norm.running_var
            if mean is not None and variance is not None:
                layer.weight, layer.bias = fuse_conv_bn_weights(
                    layer.weight, layer.bias, mean, variance, norm.eps, norm.weight, norm.bias
                )
                setattr(parent, name, getattr(norm, "act", nn.Identity()))
                n_folded += 1
    return n_folded


def weights_sha256(module: nn.Module) -> str:
    """Return the hash of a module's state: name, type, shape and values of each tensor, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data if values.numel() else b"")
    return digest.hexdigest()


# --- making models ----------------------------------------------------------------------------------------------------


def _create(architecture: Architecture, image_size: int | None, *, pretrained: bool = False) -> nn.Module:
    import timm

    arguments: dict[str, Any] = {**architecture.arguments, "pretrained": pretrained, "num_classes": 0}
    model: nn.Module
    try:
        size: dict[str, Any] = {} if image_size is None else {"img_size": image_size}
        model = timm.create_model(architecture.name, dynamic_img_size=True, **arguments, **size)
    except TypeError:  # Only transformers know these arguments; convolutions take any size anyway.
        model = timm.create_model(architecture.name, **arguments)
    return model


def _create_pretrained(architecture: Architecture, image_size: int | None) -> nn.Module:
    try:
        return _create(architecture, image_size, pretrained=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f'weights = "imagenet" needs timm\'s pretrained weights of {architecture.name}, which are downloaded once, '
            f"and that failed ({_first_line(error)}); connect to the network and run again, or give a .safetensors "
            f"file of this model instead"
        ) from error


@contextmanager
def _seeded(seed: int) -> Generator[None, None, None]:
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


def _is_on_hub(name: str) -> bool:
    return name.startswith(("hf_hub:", "hf-hub:"))


def _downloaded(name: str, files: Sequence[str]) -> Path:
    """Return the path of the first of these files that a repository of the hub has, downloaded once.

    A file in the cache is taken without asking whether it has changed since, so that a run goes on with the weights
    that it began with.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError, LocalEntryNotFoundError

    repository, _, revision = name.partition(":")[2].partition("@")
    for file in files:
        with suppress(LocalEntryNotFoundError, ValueError):
            return Path(hf_hub_download(repository, file, revision=revision or None, local_files_only=True))
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None))
        except LocalEntryNotFoundError as error:  # an OSError and an EntryNotFoundError: no answer, and no copy here
            cause = error.__cause__ or error
            raise DataError(_download_failed(name, file, cause)) from error
        except EntryNotFoundError:
            continue
        except (OSError, HTTPError, ValueError, RuntimeError) as error:
            raise DataError(_download_failed(name, file, error)) from error
    raise DataError(f"{name}: this repository has no {' or '.join(files)}; it is no timm model with weights")


def _download_failed(name: str, file: str, error: BaseException) -> str:
    return (
        f"{name}: {file} is downloaded from the Hugging Face hub once, and that failed ({_first_line(error)}); connect "
        f'to the network and run again, check the name, or give a file: backbone = "zoobot:<timm name>" and weights '
        f'= "<file>"'
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


# --- loading weights --------------------------------------------------------------------------------------------------


def _load_weights(backbone: nn.Module, path: Path, model: str) -> None:
    """Fill a backbone, in place, with exactly the weights of a file."""
    expected = backbone.state_dict()
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path, expected)
    config: Any = backbone.pretrained_cfg
    layers = [config["classifier"]] if isinstance(config["classifier"], str) else config["classifier"] or ()
    found = {key: value for key, value in found.items() if not any(key.startswith(f"{layer}.") for layer in layers)}

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
        raise DataError(f"{path}: these are not the weights of {model}: {listed}")
    backbone.load_state_dict({key: value.to(expected[key].dtype) for key, value in found.items()})


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not a readable .safetensors file ({error})") from None


def _read_checkpoint(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a PyTorch checkpoint by the backbone's own names, see `make_backbone`."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: holds more than tensors, and reading that would run code ({_first_line(error)}); where you trust "
            f'it, save torch.load(file, weights_only=False)["state_dict"] to a new file with torch.save'
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise DataError(f"{path}: not a readable PyTorch checkpoint ({_first_line(error)})") from None
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    found = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    while prefix := next((each for each in WRAPPERS if _is_wrapped(found, expected, each)), ""):
        found = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
    return found


def _is_wrapped(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in found) and not any(key.startswith(prefix) for key in expected)


def _require_trained(backbone: nn.Module, start: Mapping[str, Tensor], where: str) -> None:
    """Raise a DataError if training left no trace in the weights, which would still give plausible features.

    There is no trace where a tensor that starts at random still equals `start`, with which this backbone was made (the
    download names nothing as the model does). Nor is there one where every tensor that starts at a constant still has
    it: biases and running means 0, scales 1 (the saved start of another model). A random network whose biases or batch
    statistics were changed is not recognised.
    """
    learnt = {name: value for name, value in backbone.named_parameters() if value.requires_grad}
    statistics = ("running_mean", "running_var")
    learnt |= {name: value for name, value in backbone.named_buffers() if name.endswith(statistics)}
    firsts = {name: start[name].flatten()[0] for name in learnt}
    constant = {name: value for name, value in firsts.items() if bool((start[name] == value).all())}
    left = [name for name in learnt if name not in constant and torch.equal(learnt[name], start[name])]
    # Within 5 %, for a small scale comes out of float16 rounded; of a start at 0 that leaves nothing.
    untouched = [name for name, value in constant.items() if torch.allclose(learnt[name], value, rtol=0.05, atol=0)]
    remedy = 'give trained weights, or say weights = "random"'
    if left:
        raise DataError(f"{where}: {len(left)} tensors still hold their random start ({_first(left)}); {remedy}")
    if constant and len(untouched) == len(constant):
        raise DataError(
            f"{where}: these weights were never trained: all {len(constant)} biases, scales and batch statistics are "
            f"those of a fresh network ({_first(untouched)}); {remedy}"
        )


def _first(keys: Sequence[str], n: int = 4) -> str:
    more = f" and {len(keys) - n} more" if len(keys) > n else ""
    return ", ".join(keys[:n]) + more
