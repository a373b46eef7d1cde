"""A walk through the latent space from galaxy to galaxy: an animated GIF, and the same as a strip for paper."""

import io

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.reconstructions import plot_image_rows

FRAME_MS = 50
GIF_SIDE_PX = 320
_N_COLUMNS = 8


def draw(findings: Findings) -> Figures:
    """Draw a figure an autoencoder, and the same as an animation."""
    for table in findings.typical():
        frames = table.read_array("walk")
        if frames is not None:
            n_waypoints = len(table.need("waypoints"))
            yield f"latent_walk-{table.spec.features}", plot_latent_walk(frames, n_waypoints)
            yield f"latent_walk-{table.spec.features}", walk_gif(frames, GIF_SIDE_PX)


def plot_latent_walk(frames: NDArray[np.uint8], n_waypoints: int) -> Figure:
    """Draw frames of a walk, a row from each waypoint to the next, eight at even steps; the last row closes the walk.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n_waypoints * n_steps, height, width, 3)
        Decoded cutouts of a closed walk, n_steps a leg.
    n_waypoints : int
        Galaxies that the walk goes through.

    Raises
    ------
    ValueError
        If frames are not uint8 RGB, or do not divide by the waypoints.
    """
    style.require_cutouts(frames, n_dimensions=4)
    if len(frames) % n_waypoints:
        raise ValueError(f"expected as many frames on each of {n_waypoints} legs, got {len(frames)} frames")
    n_steps = len(frames) // n_waypoints
    shown = np.linspace(0, n_steps, min(_N_COLUMNS, n_steps + 1)).round().astype(int)
    rows = {
        f"galaxy {leg + 1} to {(leg + 1) % n_waypoints + 1}": frames[(leg * n_steps + shown) % len(frames)]
        for leg in range(n_waypoints)
    }
    return plot_image_rows(rows, None)


def walk_gif(frames: NDArray[np.uint8], side_px: int) -> bytes:
    """Return an endless GIF of frames (n, height, width, 3), `FRAME_MS` each, enlarged to `side_px`, of one palette."""
    style.require_cutouts(frames, n_dimensions=4)
    size = (side_px, side_px)
    large = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames]
    # One palette, for that of each frame would flicker; every colour once, for by area nearly all of it would be sky.
    colours = np.unique(frames.reshape(-1, 3), axis=0)
    palette = Image.fromarray(colours[None]).quantize(256, Image.Quantize.MAXCOVERAGE)
    drawn = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in large]
    file = io.BytesIO()
    drawn[0].save(file, "GIF", save_all=True, append_images=drawn[1:], duration=FRAME_MS, loop=0)
    return file.getvalue()
