"""What a network is shown of a cutout: fewer pixels, a blur, one band, no colours. No pixel is rounded to 8 bits again.

A spatial view is one matrix from the rows of a cutout to the rows of what is shown, and the same for its columns.
"""

from functools import cache
from itertools import permutations
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from sfnetlab.errors import DataError

Colours = Literal["all", "grey", "red", "green", "blue", "shuffled"]

_BANDS = {"red": 0, "green": 1, "blue": 2}
_ORDERS = torch.tensor(list(permutations(range(3))))


class ImageView(nn.Module):
    """A layer from cutouts to what a network is shown of them; it has nothing to learn.

    Parameters
    ----------
    degrade_to
        Pixels a side that are left; None: all of them. Each is the mean of the cutout over its square, where a pixel
        that the edge of the square cuts counts with the share of its area. So the mean surface brightness, and with it
        the flux, stays what it was for any number of pixels.
    keep_size
        Draw each of these pixels as the square that it is the mean of (with the same shares), so that the network's
        layers see the galaxy at its usual size; else the network gets an image of `degrade_to` pixels a side.
    colours
        "grey": the mean of the bands, three times. "red", "green", "blue": this band, three times. "shuffled": the
        bands of each galaxy in one of their 6 orders, which the sum of its 8-bit pixels modulo 6 chooses. That is no
        function of colour, and the same however the cutout is turned or mirrored.
    blur_sigma_px
        Standard deviation of a Gaussian blur, in pixels of the cutout, before it is degraded; edges are mirrored.
    """

    def __init__(
        self,
        *,
        degrade_to: int | None = None,
        keep_size: bool = True,
        colours: Colours = "all",
        blur_sigma_px: float = 0.0,
    ) -> None:
        super().__init__()
        self.degrade_to = degrade_to
        self.keep_size = keep_size
        self.colours = colours
        self.blur_sigma_px = blur_sigma_px

    @property
    def arguments(self) -> dict[str, int | bool | str | float | None]:
        """Arguments of the constructor that make this view again."""
        return {
            "degrade_to": self.degrade_to,
            "keep_size": self.keep_size,
            "colours": self.colours,
            "blur_sigma_px": self.blur_sigma_px,
        }

    def forward(self, images: Tensor) -> Tensor:  # pyrefly: ignore[missing-override-decorator]
        """Return what is shown of cutouts, uint8 (n, height, width, 3): float32, 0 to 255, channels last.

        Raises
        ------
        DataError
            If a cutout has fewer pixels a side than `degrade_to`.
        """
        shown = self._coloured(images)
        if self.degrade_to is None and self.blur_sigma_px == 0:
            return shown
        matrices = [self._matrix(side).to(images.device) for side in images.shape[1:3]]
        return torch.einsum("oh,nhwc,pw->nopc", matrices[0], shown, matrices[1])

    def _coloured(self, images: Tensor) -> Tensor:
        pixels = images.float()
        if self.colours == "all":
            return pixels
        if self.colours == "grey":
            return pixels.mean(dim=3, keepdim=True).expand(-1, -1, -1, 3)
        if self.colours == "shuffled":
            which = images.sum(dim=(1, 2, 3), dtype=torch.int64) % len(_ORDERS)
            orders = _ORDERS.to(images.device)[which]
            return pixels.gather(3, orders[:, None, None, :].expand(pixels.shape))
        band = _BANDS[self.colours]
        return pixels[..., band : band + 1].expand(-1, -1, -1, 3)

    def _matrix(self, side: int) -> Tensor:
        return _spatial_matrix(side, self.degrade_to, self.keep_size, self.blur_sigma_px)


def square_shares(side: int, n: int) -> NDArray[np.float64]:
    """Return how much of each pixel lies in each of n equal parts of a row of `side` pixels, (n, side).

    Entry (i, j) is the length of pixel j in part i, in pixels. Multiplied by n / side, the matrix averages `side`
    pixels into n values; its transpose draws n values as `side` pixels. Both keep the mean.
    """
    edges = np.arange(n + 1) * side / n
    pixels = np.arange(side + 1)
    ends = np.minimum(edges[1:, None], pixels[None, 1:])
    starts = np.maximum(edges[:-1, None], pixels[None, :-1])
    return np.clip(ends - starts, 0, None)


@cache
def _spatial_matrix(side: int, degrade_to: int | None, keep_size: bool, blur_sigma_px: float) -> Tensor:
    if degrade_to is not None and degrade_to > side:
        raise DataError(f"a view degrades cutouts of {side} px to {degrade_to} px; degrade_to must be at most {side}")
    matrix = np.eye(side)
    if blur_sigma_px > 0:
        matrix = ndimage.gaussian_filter1d(matrix, blur_sigma_px, axis=0, mode="reflect")
    if degrade_to is not None:
        shares = square_shares(side, degrade_to)
        matrix = shares * (degrade_to / side) @ matrix
        matrix = shares.T @ matrix if keep_size else matrix
    return torch.from_numpy(matrix).float()
