"""What the scripts of this folder share: the job that `sfnetlab bench sae-peers` gives them, and their batches.

They run in environments of their own, in which sfnetlab is not installed and its requirements may not be met: so they
import nothing of it, and are no part of the package's modules. A script finds this one beside it.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor


def run(train: Callable[[Tensor, dict[str, Any]], None]) -> None:
    """Do the job whose file is the first argument.

    It holds `rows` (a .npy file), `n_threads`, and `trainings`: the arguments of each call of `train` beside the rows,
    among them `to`, the folder in which it leaves its checkpoint. Seconds of each go to `seconds.json` beside the job.
    """
    path = Path(sys.argv[1])
    job = json.loads(path.read_text())
    torch.set_num_threads(job["n_threads"])
    rows = torch.from_numpy(np.load(job["rows"]))
    seconds = []
    for training in job["trainings"]:
        torch.manual_seed(training["seed"])
        started = perf_counter()
        train(rows, training)
        seconds.append(perf_counter() - started)
    path.with_name("seconds.json").write_text(json.dumps(seconds))


def batches(rows: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """Yield batches without end: each row once before any comes again, every time in another order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    while True:
        while len(order) < size:
            order = torch.cat((order, torch.randperm(len(rows), generator=generator)))
        yield rows[order[:size]]
        order = order[size:]
