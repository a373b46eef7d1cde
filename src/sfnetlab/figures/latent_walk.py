"""A walk through the latent space from galaxy to galaxy: an animated GIF, and the same as a strip for paper."""

import io

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from sfnetlab.figures import style
from sfnetlab.figures.reconstructions import plot_image_rows

FRAME_MS = 50
_N_COLUMNS = 8


def plot_latent_walk(frames: NDArray[np.uint8], n_waypoints: int) -> Figure:
    """Frames at even steps of the walk, eight a leg: a row from each waypoint towards the next, the first one last.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n_waypoints * n_steps, height, width, 3)
        Decoded cutouts of a closed walk, n_steps a leg.
    n_waypoints
        Galaxies that the walk goes through.
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
    """An endless GIF of frames (n, height, width, 3), `FRAME_MS` each, enlarged to `side_px`; all share one palette."""
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
