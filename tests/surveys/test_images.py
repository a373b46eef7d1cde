"""Images: decoded whole or not at all, the right way up, symmetries of the square, exact statistics."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sfnetlab.errors import DataError
from sfnetlab.surveys.images import (
    channel_statistics,
    decode_image,
    dihedral,
    fit_to_size,
    random_dihedral,
    read_image,
)


def read(path: Path, stretch: float = 0.5, q: float = 8.0) -> np.ndarray:
    return read_image(path, fits_stretch=stretch, fits_q=q)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def test_png_pixels_come_back_with_row_0_at_the_top(tmp_path: Path) -> None:
    pixels = noise(20, 24, 3)
    decoded = read(saved(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(decoded, pixels)
    assert decoded.dtype == np.uint8


def test_jpeg_pixels_come_back_nearly(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8)[:, None, None], (32, 32, 3))
    decoded = read(saved(tmp_path / "a.jpg", np.ascontiguousarray(smooth), quality=95))
    assert np.abs(decoded.astype(int) - smooth).max() < 10


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_grey_is_repeated_in_three_channels(tmp_path: Path, extension: str) -> None:
    decoded = read(saved(tmp_path / f"a{extension}", noise(16, 16)))
    assert decoded.shape == (16, 16, 3)
    assert (decoded == decoded[:, :, :1]).all()


@pytest.mark.parametrize("n_colours", [1, 3])
def test_alpha_is_dropped_and_colours_below_it_stay(tmp_path: Path, n_colours: int) -> None:
    pixels = noise(16, 16, n_colours + 1)
    pixels[0, 0, -1] = 0
    decoded = read(saved(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(decoded, np.broadcast_to(pixels[:, :, :n_colours], (16, 16, 3)))


@pytest.mark.parametrize("options", [{}, {"transparency": b"\x00\x80\xff"}], ids=["opaque", "transparent"])
def test_palettes_are_looked_up(tmp_path: Path, options: dict[str, Any]) -> None:
    colours = np.array([[255, 0, 0], [0, 200, 0], [1, 2, 3]], dtype=np.uint8)
    indices = np.random.default_rng(0).integers(0, 3, (16, 16), dtype=np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.png", **options)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), colours[indices])


def test_of_16_bits_the_upper_8_are_kept(tmp_path: Path) -> None:
    pixels = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    decoded = read(saved(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(decoded, np.repeat((pixels // 256)[:, :, None], 3, axis=2))
    assert decoded.max() == 255


def png_of_16_bits(colours: np.ndarray) -> bytes:
    """(height, width, 2 to 4) as PNG: grey with alpha, colour, colour with alpha; Pillow writes none of them."""

    def block(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, n_colours = colours.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[n_colours], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", zlib.compress(rows)) + block(b"IEND", b"")


@pytest.mark.parametrize("n_colours", [2, 3, 4])
def test_of_16_bit_colours_the_upper_8_are_kept_and_alpha_is_dropped(n_colours: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (16, 20, n_colours), dtype=np.uint16)
    pixels[0, 0], pixels[0, 1, -1] = 65535, 0
    upper = (pixels[:, :, : 1 if n_colours == 2 else 3] >> 8).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(png_of_16_bits(pixels)), np.broadcast_to(upper, (16, 20, 3)))


def test_black_and_white_is_decoded_to_0_and_255(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (16, 16)).astype(bool)
    Image.fromarray(bits).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), np.repeat(bits[:, :, None] * np.uint8(255), 3, axis=2))


def test_a_jpeg_in_cmyk_comes_out_in_rgb() -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 100, 50)).convert("CMYK").save(file, "JPEG", quality=95)
    assert np.abs(decode_image(file.getvalue()).astype(int) - [200, 100, 50]).max() < 8


def test_bytes_that_are_no_image_are_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"^not a JPEG or PNG, its 5 bytes begin with b'hello'$"):
        decode_image(b"hello")


def broken_files(folder: Path) -> dict[str, Path]:
    whole = saved(folder / "whole.jpg", noise(64, 64, 3)).read_bytes()
    whole_png = saved(folder / "whole.png", noise(64, 64, 3)).read_bytes()
    contents = {
        "half.jpg": whole[: len(whole) // 2],
        "header.jpg": whole[:100],
        "empty.jpg": b"",
        "html.jpg": b"<!DOCTYPE html><html>404 Not Found</html>",
        "half.png": whole_png[: len(whole_png) // 2],
        "flipped.png": whole_png[:60] + bytes(byte ^ 0xFF for byte in whole_png[60:200]) + whole_png[200:],
        "empty.fits": b"",
        "html.fits": b"<!DOCTYPE html><html>404 Not Found</html>",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


BROKEN = ["half.jpg", "header.jpg", "empty.jpg", "html.jpg", "half.png", "flipped.png", "empty.fits", "html.fits"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_an_error_and_never_an_image(tmp_path: Path, name: str) -> None:
    path = broken_files(tmp_path)[name]
    with pytest.raises(DataError, match=r": (not a JPEG or PNG|cannot be decoded)") as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_an_error_page_is_recognisable_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"41 bytes begin with b'<!DOCTYPE ht'"):
        read(broken_files(tmp_path)["html.jpg"])


@given(st.integers(0))
def test_a_jpeg_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, n: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = saved(folder / "whole.jpg", noise(64, 64, 3)).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: n % len(whole)])
    with pytest.raises(DataError):
        read(folder / "cut.jpg")


@pytest.mark.parametrize("extension", [".jpg", ".png", ".fits"])
def test_a_missing_file_is_called_missing(tmp_path: Path, extension: str) -> None:
    with pytest.raises(DataError, match=f"none{extension}: missing$"):
        read(tmp_path / f"none{extension}")


def test_an_enormous_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", noise(64, 64, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="exceeds limit"):
        read(path)


def fits_file(path: Path, data: np.ndarray) -> Path:
    fits.PrimaryHDU(data).writeto(path)
    return path


def test_fits_rows_are_flipped_so_that_north_up_stays_up(tmp_path: Path) -> None:
    sky = np.zeros((20, 20), dtype=np.float32)
    sky[-1, 3] = 1.0  # FITS counts rows from the bottom: the last is the northernmost
    decoded = read(fits_file(tmp_path / "a.fits", sky))
    assert np.argwhere(decoded[:, :, 0] > 0).tolist() == [[0, 3]]


@pytest.mark.parametrize(("plane", "channel"), [(0, 2), (1, 1), (2, 0)], ids=["g is blue", "r is green", "i is red"])
def test_fits_planes_g_r_i_become_blue_green_red(tmp_path: Path, plane: int, channel: int) -> None:
    planes = np.zeros((3, 16, 16), dtype=np.float32)
    planes[plane] = 0.3
    decoded = read(fits_file(tmp_path / "a.fits", planes))
    assert (decoded[:, :, channel] > 50).all()
    assert decoded.sum() == decoded[:, :, channel].sum()


def test_fits_scaling_is_luptons_asinh(tmp_path: Path) -> None:
    flux = np.linspace(-0.1, 0.8, 256).reshape(16, 16)
    decoded = read(fits_file(tmp_path / "a.fits", flux), stretch=0.5, q=8.0)
    expected = 255 * 0.1 / np.arcsinh(0.1 * 8) * np.arcsinh(8 * np.clip(flux, 0, None) / 0.5)
    assert np.abs(decoded[::-1, :, 1] - np.clip(expected, 0, 255)).max() <= 1


def test_a_fits_image_of_one_plane_is_grey(tmp_path: Path) -> None:
    decoded = read(fits_file(tmp_path / "a.fits", np.random.default_rng(0).random((16, 16))))
    assert (decoded == decoded[:, :, :1]).all()
    assert decoded.std() > 0


def test_big_endian_integers_and_image_extensions_are_read(tmp_path: Path) -> None:
    data = np.arange(256, dtype=">i2").reshape(16, 16)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data)]).writeto(tmp_path / "a.fits")
    assert read(tmp_path / "a.fits", stretch=100.0).shape == (16, 16, 3)


def test_non_finite_fits_pixels_are_counted_and_refused(tmp_path: Path) -> None:
    planes = np.ones((3, 16, 16), dtype=np.float32)
    planes[1, 2, 3:5] = np.nan
    planes[0, 0, 0] = np.inf
    with pytest.raises(DataError, match="3 of 768 pixels are not finite"):
        read(fits_file(tmp_path / "a.fits", planes))


@pytest.mark.parametrize("shape", [(16,), (2, 16, 16), (5, 16, 16), (16, 16, 3), (16, 16, 16), (2, 3, 16, 16)])
def test_fits_images_of_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"a FITS cutout is \(height, width\) or \(3, height, width\)"):
        read(fits_file(tmp_path / "a.fits", np.ones(shape)))


def test_a_fits_file_without_an_image_is_refused(tmp_path: Path) -> None:
    fits.PrimaryHDU().writeto(tmp_path / "a.fits")
    with pytest.raises(DataError, match="holds no image"):
        read(tmp_path / "a.fits")


@pytest.mark.filterwarnings("ignore:File may have been truncated")
def test_a_truncated_fits_image_is_refused(tmp_path: Path) -> None:
    path = fits_file(tmp_path / "a.fits", np.ones((3, 64, 64)))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DataError, match="cannot be decoded"):
        read(path)


def test_crop_is_the_centre() -> None:
    image = noise(160, 160, 3)
    np.testing.assert_array_equal(fit_to_size(image, None, 144), image[8:152, 8:152])


def test_nothing_to_fit_leaves_the_image() -> None:
    image = noise(20, 30, 3)
    np.testing.assert_array_equal(fit_to_size(image, None, None), image)
    np.testing.assert_array_equal(fit_to_size(image[:, :20], 20, 20), image[:, :20])


def test_resize_comes_before_crop() -> None:
    image = noise(80, 80, 3)
    np.testing.assert_array_equal(fit_to_size(image, 40, 30), fit_to_size(image, 40, None)[5:35, 5:35])


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((128, 128, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    shrunk = fit_to_size(stripes, 32, None)[:, 4:-4]
    assert np.abs(shrunk.astype(int) - 127).max() < 8


def test_a_crop_larger_than_the_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="30×20 pixels: smaller than crop = 24"):
        fit_to_size(noise(20, 30, 3), None, 24)


def test_an_oblong_image_is_not_squeezed() -> None:
    with pytest.raises(ValueError, match="30×20 pixels: only square"):
        fit_to_size(noise(20, 30, 3), 16, None)


def symmetries(image: np.ndarray) -> list[np.ndarray]:
    return list(dihedral(np.repeat(image[None], 8, axis=0), np.arange(8)))


def test_operation_0_is_the_identity() -> None:
    images = noise(5, 8, 8, 3)
    np.testing.assert_array_equal(dihedral(images, np.zeros(5, dtype=int)), images)


def test_the_eight_operations_are_distinct_permutations_of_the_pixels() -> None:
    numbered = np.arange(75, dtype=np.uint8).reshape(5, 5, 3)
    turned = symmetries(numbered)
    assert len({image.tobytes() for image in turned}) == 8
    for image in turned:
        assert sorted(map(tuple, image.reshape(-1, 3))) == sorted(map(tuple, numbered.reshape(-1, 3)))


@pytest.mark.parametrize("side", [4, 5])
def test_the_eight_operations_form_a_group(side: int) -> None:
    image = np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3)
    known = {turned.tobytes() for turned in symmetries(image)}
    for turned in symmetries(image):
        products = [again.tobytes() for again in symmetries(turned)]
        assert set(products) == known
        assert image.tobytes() in products  # an inverse


@given(st.lists(st.integers(0, 7), min_size=1, max_size=20), st.integers(0, 99))
def test_each_image_gets_its_own_operation(ops: list[int], seed: int) -> None:
    images = noise(len(ops), 6, 6, 3, seed=seed)
    together = dihedral(images, np.array(ops))
    for i, op in enumerate(ops):
        np.testing.assert_array_equal(together[i], dihedral(images[i : i + 1], np.array([op]))[0])


def test_random_operations_are_uniform_and_repeatable() -> None:
    image = noise(4, 4, 3)
    images = np.repeat(image[None], 4000, axis=0)
    first, again = (random_dihedral(images, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    _, counts = np.unique(first.reshape(4000, -1), axis=0, return_counts=True)
    assert len(counts) == 8
    assert counts.min() > 400


def test_augmentation_leaves_its_input_alone() -> None:
    images = noise(20, 6, 6, 3)
    before = images.copy()
    random_dihedral(images, np.random.default_rng(0))[:] = 0
    np.testing.assert_array_equal(images, before)


def test_oblong_images_cannot_be_turned() -> None:
    with pytest.raises(ValueError, match="square"):
        dihedral(noise(2, 4, 5, 3), np.zeros(2, dtype=int))


@pytest.mark.parametrize("ops", [[0, 8], [-1, 0], [0]])
def test_operations_outside_the_group_are_refused(ops: list[int]) -> None:
    with pytest.raises(ValueError, match=r"ops must be 2 integers in 0\.\.7"):
        dihedral(noise(2, 4, 4, 3), np.array(ops))


@given(st.integers(1, 12), st.integers(1, 13), st.integers(0, 99))
def test_channel_statistics_equal_numpys_over_all_pixels(n_rows: int, block: int, seed: int) -> None:
    images = noise(12, 5, 5, 3, seed=seed)
    rows = np.random.default_rng(seed).permutation(12)[:n_rows]
    mean, sd = channel_statistics(images, rows, block)
    pixels = images[rows].reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sd, pixels.std(axis=0), rtol=1e-12)


def test_channel_statistics_read_a_memory_map(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", noise(10, 5, 5, 3))
    mean, sd = channel_statistics(np.load(tmp_path / "images.npy", mmap_mode="r"), np.arange(10))
    assert mean.shape == sd.shape == (3,)


def test_channel_statistics_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        channel_statistics(noise(3, 4, 4, 3), np.array([], dtype=int))
