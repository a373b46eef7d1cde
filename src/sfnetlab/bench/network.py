"""Speed of training an SFNet."""

from collections.abc import Callable, Iterator

from sfnetlab.bench.compare import Row, compare


def network(device: str) -> Iterator[Row]:
    """Yield a row for each image size: images per second in training, channels last against contiguous."""
    import torch
    from torch import nn

    from sfnetlab.models.backbones import make_backbone
    from sfnetlab.models.sfnet import SparseFeatureNetwork

    def make_contiguous(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(x.contiguous() for x in inputs)

    def make_step(size: int, layout: torch.memory_format) -> Callable[[], None]:
        images = torch.randint(0, 255, (n, size, size, 3), dtype=torch.uint8, device=device)
        labels = torch.randn(n, 1, device=device)
        network = SparseFeatureNetwork(make_backbone("resnet18", "random", 0), "resnet18", 1, 4).to(device)
        network.to(memory_format=layout)
        if layout == torch.contiguous_format:
            first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
            first.register_forward_pre_hook(make_contiguous)
        optimizer = torch.optim.AdamW(network.parameters())

        def step() -> None:
            optimizer.zero_grad()
            (network(images) - labels).square().mean().backward()
            optimizer.step()

        return step

    n = 64
    for size in (64, 144):
        ours, reference = make_step(size, torch.channels_last), make_step(size, torch.contiguous_format)
        case = f"SFNet training at {size} px, channels last against contiguous"
        yield compare("network", case, "images/s", n, ours, reference, device)
