# /// script
# requires-python = ">=3.11"
# dependencies = ["dictionary-learning==0.1.0"]
# ///
"""dictionary_learning as its demonstration trains: trainSAE, Adam at 2e-4 / sqrt(n_latents / 2^14).

Read in 0.1.0 and in the repository dictionary_learning_demo: 50 million rows, 2,048 a step, scaled to norm 1, with a
warm-up of 1,000 steps and a rate that falls in the last fifth. What is counted in steps there is the same share of a
shorter run here. Its b_dec starts at the first batch's geometric median.
"""

from pathlib import Path
from typing import Any

from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer  # pyrefly: ignore[missing-import]
from dictionary_learning.trainers.matryoshka_batch_top_k import (  # pyrefly: ignore[missing-import]
    MatryoshkaBatchTopKTrainer,
)
from dictionary_learning.trainers.top_k import TopKTrainer  # pyrefly: ignore[missing-import]
from dictionary_learning.training import trainSAE  # pyrefly: ignore[missing-import]
from peer_job import batches, run  # pyrefly: ignore[missing-import]
from torch import Tensor

TRAINERS = {"topk": TopKTrainer, "batch_topk": BatchTopKTrainer, "matryoshka": MatryoshkaBatchTopKTrainer}
STEPS, BATCH_SIZE, LEARNING_RATE = 50_000_000 // 2048, 2048, 2e-4
WARM_UP, THRESHOLD_MEMORY = 1000, 0.999
"""Steps until the rate is full and the threshold is followed, and how much of the threshold a step keeps."""


def train(rows: Tensor, wanted: dict[str, Any]) -> None:
    batch_size = wanted["batch_size"] or BATCH_SIZE
    n_steps = max(3, wanted["epochs"] * len(rows) // batch_size)
    stretch = max(1.0, STEPS / n_steps)
    warm_up = round(WARM_UP / stretch)
    trainer = {
        "trainer": TRAINERS[wanted["variant"]],
        "steps": n_steps,
        "activation_dim": rows.shape[1],
        "dict_size": wanted["n_latents"],
        "k": wanted["k"],
        "layer": 0,
        "lm_name": "none",
        "lr": LEARNING_RATE * (2**14 / wanted["n_latents"]) ** 0.5 * wanted["rate_factor"],
        "warmup_steps": warm_up,
        "decay_start": max(warm_up + 1, int(0.8 * n_steps)),
        "threshold_beta": THRESHOLD_MEMORY**stretch,
        "threshold_start_step": warm_up,
        "seed": wanted["seed"],
        "device": "cpu",
    }
    if wanted["variant"] == "matryoshka":
        trainer["group_fractions"] = [size / wanted["n_latents"] for size in wanted["group_sizes"]]
    to = Path(wanted["to"])
    trainSAE(
        batches(rows, batch_size, wanted["seed"]),
        [trainer],
        steps=n_steps,
        save_dir=str(to),
        normalize_activations=True,
        device="cpu",
    )
    for file in (to / "trainer_0").iterdir():
        file.rename(to / file.name)


if __name__ == "__main__":
    run(train)
