"""What identifies every result of every configuration: written to pins.json by `uv run tests/pins.py`.

A key that changes by accident makes users build again what they have; test_pins.py holds the keys against the file.
"""

import base64
import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sfnetlab import config
from sfnetlab.jobs import Job
from sfnetlab.plan import make_plan

ROOT = Path(__file__).parents[1]
PINS = Path(__file__).with_name("pins.json")
# A parquet table of one row and the one column `id_str`: "1". Bytes, for each version of pyarrow writes others.
PARQUET = base64.b64decode(
    "UEFSMRUAFRYVFiwVAhUAFQYVBhwAAAACAAAAAgEBAAAAMRUEGSw1ABgGc2NoZW1hFQIAFQwlAhgGaWRfc3RyJQBMHAAAABYCGRwZHCYAHBUMGSUGABkY"
    "BmlkX3N0chUAFgIWPBY8JghJHBUAFQAVAgA8FgIZBhkmAAIAAAAWPBYCJggWPAAoIHBhcnF1ZXQtY3BwLWFycm93IHZlcnNpb24gMjYuMC4wGRwcAAAA"
    "jAAAAFBBUjE="
)
STAND_INS = {
    "data/sdss_metallicity/galaxies.csv": "objID,oh_p50\n1,8.9\n",
    "data/sdss_metallicity/images/1.jpg": "an image",
    "data/sdss/catalog.parquet": PARQUET,
    "data/sdss/images/1.jpg": "an image",
    "data/sdss/download.json": json.dumps(
        {"format": 1, "layer": "sdss", "pixel_scale_arcsec": 0.262, "size": 160, "finished": "2026-01-01"}
    ),
    "data/euclid/morphology_catalogue.parquet": PARQUET,
    "data/galaxyzoo/galaxies.csv": "objID,elliptical\n1,0.5\n",
    "data/galaxyzoo/images/1.jpg": "an image",
    "data/weights/vit_small_patch14_dinov2.safetensors": "weights",
    "data/weights/tf_efficientnet_lite0.safetensors": "other weights",
}
"""Files that the configurations name. A plan reads no more of them than what identifies them."""


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """Work in a folder that holds the stand-ins, all of the same time."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in STAND_INS.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            os.utime(path, (0, 0))
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def plan_of(path: Path) -> list[Job]:
    """The jobs of one configuration."""
    with stand_ins():
        return make_plan(config.load(path))


def pins_of(path: Path) -> dict[str, str]:
    """For each stage of one configuration the number of its jobs, and a hash of their names and keys."""
    stages: dict[str, list[str]] = {}
    for job in plan_of(path):
        stages.setdefault(job.stage, []).append(f"{job} {job.key}\n")
    digests = {stage: hashlib.sha256("".join(sorted(jobs)).encode()).hexdigest()[:16] for stage, jobs in stages.items()}
    return {stage: f"{len(stages[stage])} {digest}" for stage, digest in digests.items()}


def write_pins() -> None:
    """Write pins.json, a line a stage."""
    pins = {path.name: pins_of(path) for path in sorted((ROOT / "config").glob("*.toml"))}
    PINS.write_text(json.dumps(pins, indent=1) + "\n")


if __name__ == "__main__":
    write_pins()
    sys.stdout.write(f"{PINS}: written\n")
