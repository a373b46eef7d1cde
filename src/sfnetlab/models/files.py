"""How a model is kept on disk: `model.safetensors` has its state, `model.json` the arguments of its constructor."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from sfnetlab.errors import ArtifactError

FORMAT = 1


def write_model(directory: Path, kind: str, module: nn.Module, arguments: dict[str, Any]) -> None:
    """Write both files of a model into a directory; `read_arguments` and `load_state` read them again."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    # Not save_file, which hides that a disk is full behind an error of its own.
    (directory / "model.safetensors").write_bytes(save(state))
    text = json.dumps({"format": FORMAT, "kind": kind, "arguments": arguments}, indent=1, allow_nan=False)
    (directory / "model.json").write_text(text + "\n")


def read_arguments(directory: Path, kind: str) -> dict[str, Any]:
    """Return the arguments for the constructor of the model in a directory.

    Raises
    ------
    ArtifactError
        If there is no readable `model.json`, its format is unknown, or it describes another kind of model.
    """
    path = directory / "model.json"
    try:
        description = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not a readable description of a model ({error}); train it again") from None
    for key, expected in (("format", FORMAT), ("kind", kind)):
        found = description.get(key) if isinstance(description, dict) else None
        if found != expected:
            raise ArtifactError(
                f"{path}: expected {key} {expected!r}, found {found!r}; "
                f"it is another kind of model, or was written by another version of sfnetlab"
            )
    arguments: dict[str, Any] = description["arguments"]
    return arguments


def load_state(directory: Path, module: nn.Module) -> None:
    """Fill a module, in place, with the state that `write_model` wrote.

    Raises
    ------
    ArtifactError
        If the file is missing or damaged, or its tensors are not exactly those of the module.
    """
    path = directory / "model.safetensors"
    try:
        module.load_state_dict(load(path.read_bytes()))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ArtifactError(f"{path}: does not hold the weights of this model ({error}); train it again") from None
