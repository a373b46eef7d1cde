"""Speed of training an SFNet."""

from collections.abc import Callable, Iterator

from sfnetlab.bench.compare import Row, compare
from sfnetlab.runtime import Precision, resolve_precision

_CASES = ((64, 32), (64, 128), (144, 32))
"""Pixels a side and batch sizes."""
_N_STEPS = 4


def network(device: str) -> Iterator[Row]:
    """Yield images per second in training: channels last against contiguous, and bfloat16 against float32.

    Precisions are compared where `training.precision = "auto"` is bfloat16.
    """
    for size, batch_size in _CASES:
        at = f"at {size} px, batch {batch_size}"
        ours = _steps(size, batch_size, device)
        reference = _steps(size, batch_size, device, is_channels_last=False)
        case = f"SFNet training {at}, channels last against contiguous"
        yield compare("network", case, "images/s", _N_STEPS * batch_size, ours, reference, device)
        if resolve_precision("auto", device) == "bfloat16":
            rounded = _steps(size, batch_size, device, precision="bfloat16")
            case = f"SFNet training {at}, bfloat16 against float32"
            yield compare("network", case, "images/s", _N_STEPS * batch_size, rounded, ours, device)


def _steps(
    size: int, batch_size: int, device: str, *, precision: Precision = "float32", is_channels_last: bool = True
) -> Callable[[], None]:
    """Return what takes some training steps on random cutouts, and waits for the device."""
    import torch
    from torch import nn

    from sfnetlab.models.backbones import make_backbone
    from sfnetlab.models.sfnet import SparseFeatureNetwork

    def make_contiguous(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(x.contiguous() for x in inputs)

    images = torch.randint(0, 255, (batch_size, size, size, 3), dtype=torch.uint8, device=device)
    labels = torch.randn(batch_size, 1, device=device)
    network = SparseFeatureNetwork(make_backbone("resnet18", "random", 0), "resnet18", 1, 4).to(device)
    network.encoder.precision = precision
    if is_channels_last:
        network.to(memory_format=torch.channels_last)
    else:
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        first.register_forward_pre_hook(make_contiguous)
    optimizer = torch.optim.AdamW(network.parameters())

    def steps() -> None:
        for _ in range(_N_STEPS):
            optimizer.zero_grad()
            loss = (network(images) - labels).square().mean()
            loss.backward()
            optimizer.step()
        loss.item()

    return steps
