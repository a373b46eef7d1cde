"""Images: decoded whole or not at all, the right way up, symmetries of the square, exact statistics."""

import gzip
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.visualization import AsinhStretch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from sfnetlab.errors import DataError
from sfnetlab.surveys.images import (
    channel_statistics,
    decode_image,
    dihedral,
    fit_to_size,
    random_dihedral,
    read_image,
    trouble_of_one_colour,
)


def read(path: Path, stretch: float = 0.5, q: float = 8.0, **settings: Any) -> np.ndarray:
    return read_image(path, fits_stretch=stretch, fits_q=q, **settings)


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


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "GIF"])
def test_lossless_files_of_other_kinds_come_back_exactly(kind: str) -> None:
    pixels = noise(8, 12, 3)
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decode_image(encoded(pixels, kind, **options)), pixels)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_of_a_tiff_of_16_bits_the_upper_8_are_kept(compression: str | None) -> None:
    pixels = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    decoded = decode_image(encoded(pixels, "TIFF", compression=compression))
    np.testing.assert_array_equal(decoded[:, :, 0], pixels // 256)


@pytest.mark.parametrize("dtype", ["i4", "f4"])
def test_a_tiff_whose_values_do_not_say_what_is_white_is_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match=r"do not say what is black and white; .* or as FITS"):
        decode_image(encoded(np.arange(400).reshape(20, 20).astype(dtype), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_a_file_of_several_images_is_refused(kind: str) -> None:
    frames = [Image.fromarray(noise(16, 16, 3, seed=seed)) for seed in (0, 1)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=rf"^a {kind} of 2 images, expected one$"):
        decode_image(file.getvalue())


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_upright_as_its_exif_orientation_says(kind: str, orientation: int) -> None:
    upright, exif = noise(6, 9, 3), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = [
        *(upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1]),
        *(np.moveaxis(each, 0, 1) for each in (upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1])),
    ][orientation - 1]
    np.testing.assert_array_equal(decode_image(encoded(np.ascontiguousarray(stored), kind, exif=exif)), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_spoil_the_pixels() -> None:
    whole = encoded(noise(16, 16, 3), "JPEG")
    exif = b"Exif\0\0MM\0*\xff\xff\xff\xff"
    damaged = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + whole[2:]
    np.testing.assert_array_equal(decode_image(damaged), decode_image(whole))


def test_a_jpeg_without_its_last_bytes_is_cut_off_and_one_with_more_is_whole() -> None:
    whole = encoded(np.full((32, 32, 3), 9, np.uint8), "JPEG")
    with pytest.raises(ValueError, match=r"cut off: .* without the end marker|cannot be decoded"):
        decode_image(whole[:-2])
    np.testing.assert_array_equal(decode_image(whole + b"\0" * 999), decode_image(whole))


@pytest.mark.parametrize("name", ["black", "white", "blue"])
def test_an_image_of_one_colour_is_trouble(name: str) -> None:
    image = np.asarray(Image.new("RGB", (16, 16), name))
    assert trouble_of_one_colour(image) == "an image of one colour: outside the survey's footprint"
    speck = image.copy()
    speck[3, 4, 1] ^= 1
    assert trouble_of_one_colour(speck) is None


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


BANDS = [np.random.default_rng(level).random((20, 20)).astype(np.float32) * level for level in (1, 2, 3)]
"""Of g, r and i."""


def as_cube(tmp_path: Path) -> np.ndarray:
    """What the bands look like as (3, height, width), the reading that needs no setting."""
    return read(fits_file(tmp_path / "cube.fits", np.stack(BANDS)))


def fits_images(path: Path, *images: tuple[str, np.ndarray]) -> Path:
    """A file with an empty primary and a named image an extension."""
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(data, name=name) for name, data in images)]).writeto(path)
    return path


@pytest.mark.parametrize("order", ["GRI", "rig", "iGr"])
def test_extensions_called_g_r_and_i_are_these_bands_in_any_order(tmp_path: Path, order: str) -> None:
    path = fits_images(tmp_path / "a.fits", *((name, BANDS["gri".index(name.lower())]) for name in order))
    np.testing.assert_array_equal(read(path), as_cube(tmp_path))


@pytest.mark.parametrize("bands", [("F814W", "f606w", "F435W"), (2, 1, 0)])
def test_bands_that_are_an_extension_each_are_chosen_by_name_or_number(tmp_path: Path, bands: tuple[Any, ...]) -> None:
    names = ("F435W", "F606W", "F814W")
    path = fits_images(tmp_path / "a.fits", *zip(names, BANDS, strict=True))
    with pytest.raises(DataError, match=r"several images .*1 'F435W' \(20, 20\).*survey.fits_bands = "):
        read(path)
    np.testing.assert_array_equal(read(path, fits_bands=bands), as_cube(tmp_path))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("n_bands", [2, 3, 4, 5])
def test_bands_of_a_cube_are_chosen_on_whichever_axis_they_are(tmp_path: Path, axis: int, n_bands: int) -> None:
    cube = np.stack([*BANDS, *BANDS][:n_bands])
    chosen = (2, 1, 0) if n_bands > 2 else (1, 1, 0)
    red, green, blue = cube[list(chosen)]
    expected = read(fits_file(tmp_path / "chosen.fits", np.stack([blue, green, red])))
    path = fits_file(tmp_path / "a.fits", np.moveaxis(cube, 0, axis))
    np.testing.assert_array_equal(read(path, fits_bands=chosen), expected)
    if (n_bands, axis) != (3, 0):
        with pytest.raises(DataError, match=rf"with {n_bands} bands on axis {axis}; write which .*fits_bands = \["):
            read(path)


def test_one_chosen_band_is_grey(tmp_path: Path) -> None:
    path = fits_file(tmp_path / "a.fits", np.stack(BANDS))
    grey = read(fits_file(tmp_path / "grey.fits", BANDS[1]))
    np.testing.assert_array_equal(read(path, fits_bands=(1,)), grey)


def test_a_band_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = fits_file(tmp_path / "a.fits", np.stack(BANDS))
    with pytest.raises(DataError, match=r"fits_bands = \[3, 1, 0\] of 3 bands, which are 0 to 2"):
        read(path, fits_bands=(3, 1, 0))
    with pytest.raises(DataError, match=r"no images 'K' in the FITS file, it holds 0 'PRIMARY' \(3, 20, 20\)"):
        read(path, fits_bands=("K", "H", "J"))


def test_bands_of_unequal_shape_are_refused(tmp_path: Path) -> None:
    path = fits_images(tmp_path / "a.fits", ("G", BANDS[0]), ("R", BANDS[1][:10, :10]), ("I", BANDS[2]))
    with pytest.raises(DataError, match=r"bands must be images .* of the same shape"):
        read(path)


@pytest.mark.parametrize("beside", ["WHT", "ERR", "dq", "Mask", "IVAR", "VAR_POISSON"])
def test_weights_errors_and_masks_beside_the_image_do_not_count(tmp_path: Path, beside: str) -> None:
    cube = np.stack(BANDS)
    path = fits_images(tmp_path / "a.fits", (beside, np.ones_like(cube)), ("SCI", cube))
    np.testing.assert_array_equal(read(path), as_cube(tmp_path))


def test_of_two_images_without_a_name_the_setting_says_which(tmp_path: Path) -> None:
    cube = np.stack(BANDS)
    path = fits_images(tmp_path / "a.fits", ("", np.ones_like(cube)), ("", cube))
    with pytest.raises(DataError, match=r"several images .*survey.fits_hdu = 1"):
        read(path)
    np.testing.assert_array_equal(read(path, fits_hdu=2), as_cube(tmp_path))


def test_pixels_that_are_not_finite_matter_in_chosen_bands_alone(tmp_path: Path) -> None:
    cube = np.stack([*BANDS, np.full((20, 20), np.nan)])
    path = fits_file(tmp_path / "a.fits", cube)
    np.testing.assert_array_equal(read(path, fits_bands=(2, 1, 0)), as_cube(tmp_path))


@pytest.mark.parametrize("how", ["fz", "gz", "axes of one", "big-endian integers"])
def test_fits_is_read_however_it_is_stored(tmp_path: Path, how: str) -> None:
    cube = np.stack(BANDS)
    path, expected = tmp_path / f"a.fits.{how}", as_cube(tmp_path)
    match how:
        case "fz":
            packed = fits.CompImageHDU(cube, compression_type="GZIP_1", quantize_level=0)
            fits.HDUList([fits.PrimaryHDU(), packed]).writeto(path)
        case "gz":
            path.write_bytes(gzip.compress((tmp_path / "cube.fits").read_bytes()))
        case "axes of one":
            path = fits_file(tmp_path / "a.fits", cube[None])
        case _:
            counts = np.round(1e4 * cube).astype(np.uint16)  # stored with BZERO
            path = fits_file(tmp_path / "a.fits", counts)
            expected = read(fits_file(tmp_path / "b.fits", counts.astype(np.float64)), stretch=5e3)
            np.testing.assert_array_equal(read(path, stretch=5e3), expected)
            return
    np.testing.assert_array_equal(read(path), expected)


def test_scaled_pixels_count_as_the_values_that_they_mean(tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU(np.arange(400, dtype=np.int16).reshape(20, 20))
    hdu.header["BSCALE"], hdu.header["BZERO"] = 0.01, -1.0
    path = tmp_path / "a.fits"
    hdu.writeto(path)
    data = np.asarray(fits.getdata(path), dtype=np.float64)
    np.testing.assert_array_equal(read(path), read(fits_file(tmp_path / "b.fits", data)))


def test_linear_scaling_goes_from_black_to_white(tmp_path: Path) -> None:
    path = fits_file(tmp_path / "a.fits", np.linspace(-1, 3, 400).reshape(20, 20)[::-1])
    levels = read(path, fits_scaling="linear", fits_limits=(0.0, 2.0))[:, :, 0]
    expected = np.rint(255 * np.clip(np.linspace(-1, 3, 400) / 2, 0, 1))
    np.testing.assert_array_equal(levels.ravel(), expected)


def test_asinh_scaling_is_astropys(tmp_path: Path) -> None:
    flux = np.linspace(0, 1, 400).reshape(20, 20)
    levels = read(fits_file(tmp_path / "a.fits", flux), q=10.0, fits_scaling="asinh", fits_limits=(0.0, 1.0))
    np.testing.assert_array_equal(levels[::-1, :, 0], np.rint(255 * AsinhStretch(a=0.1)(flux)))


def test_percentile_scaling_forgets_the_brightness_and_keeps_colours_apart(tmp_path: Path) -> None:
    faint, bright = (read(fits_file(tmp_path / f"{i}.fits", i * np.stack(BANDS)), fits_scaling="percentile",
                          fits_percentiles=(1.0, 99.0)) for i in (1, 1000))  # fmt: skip
    np.testing.assert_allclose(faint.astype(int), bright.astype(int), atol=1)
    assert faint[:, :, 0].mean() > faint[:, :, 1].mean() > faint[:, :, 2].mean()


def test_a_scaling_that_leaves_one_level_is_told_with_the_pixel_values(tmp_path: Path) -> None:
    path = fits_file(tmp_path / "a.fits", -np.stack(BANDS))
    with pytest.raises(DataError, match=r"pixel values from -2.999 to .* all become level 0; set survey.fits_scaling"):
        read(path)


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
