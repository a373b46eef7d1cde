# /// script
# requires-python = ">=3.11"
# dependencies = ["sae-lens==6.54.12"]
#
# [tool.uv]
# # transformers imports torchaudio where there is one, which fails unless it was built for the CUDA of torch.
# override-dependencies = ["torchaudio; sys_platform == 'never'"]
# ///
"""SAELens as its documentation trains: SAETrainer, Adam at 3e-4, falling to 0 in the last fifth of the run.

Read in 6.54.12 and in docs/training_saes.md, whose run has 30,000 steps: what is counted in steps there is the same
share of a shorter run here. Rows a step, 1,024, are those of docs/synth_sae_bench.md.
"""

from typing import Any

from peer_job import batches, run  # pyrefly: ignore[missing-import]
from sae_lens import (  # pyrefly: ignore[missing-import]
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    SAETrainer,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig  # pyrefly: ignore[missing-import]
from torch import Tensor

STEPS, BATCH_SIZE, LEARNING_RATE = 30_000, 1024, 3e-4
DEAD_WINDOW = 1000
"""Steps without activation after which a latent counts as dead; the package's default, as is the next."""
THRESHOLD_RATE = 0.01
"""By how much a step moves the threshold of BatchTopK."""


def train(rows: Tensor, wanted: dict[str, Any]) -> None:
    batch_size = wanted["batch_size"] or BATCH_SIZE
    n_steps = max(1, wanted["epochs"] * len(rows) // batch_size)
    stretch = max(1.0, STEPS / n_steps)
    rate = LEARNING_RATE * wanted["rate_factor"]
    sizes = {"d_in": rows.shape[1], "d_sae": wanted["n_latents"], "k": wanted["k"]}
    sizes |= {"normalize_activations": "expected_average_only_in"}
    batch_wide = {"topk_threshold_lr": 1 - (1 - THRESHOLD_RATE) ** stretch}
    match wanted["variant"]:
        case "topk":
            sae = TopKTrainingSAE(TopKTrainingSAEConfig(**sizes))
        case "batch_topk":
            sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**sizes, **batch_wide))
        case _:
            widths = [sum(wanted["group_sizes"][: i + 1]) for i in range(len(wanted["group_sizes"]))]
            settings = MatryoshkaBatchTopKTrainingSAEConfig(**sizes, **batch_wide, matryoshka_widths=widths)
            sae = MatryoshkaBatchTopKTrainingSAE(settings)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=n_steps * batch_size,
            train_batch_size_samples=batch_size,
            lr=rate,
            lr_end=rate,
            lr_decay_steps=n_steps // 5,
            dead_feature_window=max(1, round(DEAD_WINDOW / stretch)),
        ),
        sae,
        batches(rows, batch_size, wanted["seed"]),
    )
    scaler = trainer.activation_scaler
    n_batches = max(1, len(rows) // batch_size)
    scaler.estimate_scaling_factor(rows.shape[1], batches(rows, batch_size, wanted["seed"]), n_batches)
    if wanted["starts_at_mean"]:
        sae.b_dec.data = rows.mean(dim=0) * scaler.scaling_factor
    trainer.fit()
    sae.save_inference_model(wanted["to"])


if __name__ == "__main__":
    run(train)
