"""Pictures become pixels: every form and colour mode, padding, and errors that name the culprit."""

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from cambrian_model.config import CambrianConfig
from cambrian_model.errors import ConfigError, ImageError
from cambrian_model.processing.image_source import ImageSource, load_image, read_image_size
from cambrian_model.processing.images import CambrianImageProcessor, PixelSpec, pad_to_square, prepare_pixels

CLIP: dict[str, Any] = {"image_side": 6, "mean": (0.48, 0.45, 0.4), "std": (0.2, 0.3, 0.25)}
SIGLIP: dict[str, Any] = {
    "image_side": 10,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bilinear",
}
RED, GREEN = (200, 30, 10), (20, 180, 60)


@pytest.fixture
def photo() -> Image.Image:
    """5 wide, 3 high, every pixel different."""
    return Image.fromarray(np.arange(45, dtype=np.uint8).reshape(3, 5, 3) * 5)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def as_png(image: Image.Image, **options) -> bytes:
    return encoded(image, "PNG", **options)


def as_png_of_16_bits(pixels: np.ndarray, color_type: int) -> bytes:
    """A PNG of values to 65535, which Pillow reads and cannot write: 2 is RGB, 4 grey with alpha, 6 RGBA."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    sealed = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(sealed)


def test_every_form_gives_the_same_pixels(photo, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(as_png(photo))
    array = np.asarray(photo)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for source in [
        path,
        str(path),
        path.read_bytes(),
        photo,
        array,
        tensor,
        tensor.float() / 255,
        tensor.double() / 255,
    ]:
        assert np.array_equal(np.asarray(load_image(source)), array)
        assert read_image_size(source) == (3, 5)


@pytest.mark.parametrize(("channels", "shape"), [(None, (3, 5)), (1, (3, 5, 1)), (4, (3, 5, 4))])
def test_arrays_and_tensors_may_be_grey_or_have_an_alpha_channel(photo, channels, shape):
    mode = "RGBA" if channels == 4 else "L"
    picture = photo.convert(mode)
    if channels == 4:
        picture.putalpha(Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5) * 17))
    array = np.asarray(picture).reshape(shape)
    tensor = torch.from_numpy(array.copy())
    tensor = tensor if channels is None else tensor.permute(2, 0, 1)
    expected = np.asarray(load_image(picture))
    sources: list[ImageSource] = [array, np.asfortranarray(array), tensor, tensor.float() / 255, tensor.half() / 255]
    for source in sources:  # below 1, half precision has steps of an eighth of a grey level
        assert np.array_equal(np.asarray(load_image(source)), expected)
        assert read_image_size(source) == (3, 5)


def test_modes_become_rgb():
    plain = Image.new("RGB", (4, 3), RED)
    palette = plain.convert("P", palette=Image.Palette.ADAPTIVE)
    for image in [palette, plain.convert("CMYK"), plain.convert("YCbCr")]:
        # JPEG's and print's colour spaces round to a few grey levels
        assert np.abs(np.asarray(load_image(image)).astype(int) - RED).max() <= 4
    assert load_image(Image.new("L", (4, 3), 77)).getpixel((0, 0)) == (77, 77, 77)
    assert load_image(Image.new("1", (4, 3), 1)).getpixel((0, 0)) == (255, 255, 255)


# A file's bytes, and the colour that every pixel of it shows. JPEG is lossy, and greys are weighted colours.
FILES: dict[str, tuple[Callable[[], bytes], tuple[int, int, int]]] = {
    # JPEGs of four inks hold them inverted, as Photoshop writes them; TIFFs do not.
    "CMYK JPEG": (lambda: encoded(Image.new("RGB", (5, 3), RED).convert("CMYK"), "JPEG", quality=100), RED),
    "CMYK TIFF": (lambda: encoded(Image.new("RGB", (5, 3), RED).convert("CMYK"), "TIFF"), RED),
    "palette": (lambda: as_png(Image.new("RGB", (5, 3), RED).quantize()), RED),
    "palette, a clear colour": (lambda: as_png(Image.new("P", (5, 3), 0), transparency=0), (255, 255, 255)),
    "palette, half clear": (
        lambda: as_png(Image.new("RGB", (5, 3), RED).quantize(4), transparency=bytes([128] * 4)),
        (227, 142, 132),
    ),
    "palette GIF, a clear colour": (
        lambda: encoded(Image.new("P", (5, 3), 0), "GIF", transparency=0),
        (255, 255, 255),
    ),
    "RGB, a clear colour": (lambda: as_png(Image.new("RGB", (5, 3), RED), transparency=RED), (255, 255, 255)),
    "one bit": (lambda: as_png(Image.new("1", (5, 3), 1)), (255, 255, 255)),
    "grey with alpha": (lambda: as_png(Image.new("LA", (5, 3), (77, 255))), (77, 77, 77)),
    "grey of 16 bits": (lambda: as_png_of_16_bits(np.full((3, 5, 1), 77 * 257), 0), (77, 77, 77)),
    "RGB of 16 bits": (lambda: as_png_of_16_bits(np.full((3, 5, 3), np.array(RED) * 257), 2), RED),
    "RGBA of 16 bits": (lambda: as_png_of_16_bits(np.full((3, 5, 4), [*np.array(RED) * 257, 65535]), 6), RED),
    "clear RGBA of 16 bits": (lambda: as_png_of_16_bits(np.full((3, 5, 4), [9, 9, 9, 0]), 6), (255, 255, 255)),
    "grey with alpha of 16 bits": (lambda: as_png_of_16_bits(np.full((3, 5, 2), [77 * 257, 65535]), 4), (77, 77, 77)),
    "WebP": (lambda: encoded(Image.new("RGB", (5, 3), RED), "WEBP", lossless=True), RED),
    "BMP": (lambda: encoded(Image.new("RGB", (5, 3), RED), "BMP"), RED),
}


@pytest.mark.parametrize(("content", "color"), FILES.values(), ids=FILES)
def test_every_kind_of_file_becomes_rgb(content, color):
    picture = load_image(content())
    assert (picture.mode, picture.size) == ("RGB", (5, 3))
    assert read_image_size(content()) == (3, 5)
    assert np.abs(np.asarray(picture).astype(int) - color).max() <= 2


def test_transparency_lies_over_white():
    clear = (*RED, 0)
    assert load_image(Image.new("RGBA", (4, 3), clear)).getpixel((0, 0)) == (255, 255, 255)
    assert load_image(Image.new("RGBA", (4, 3), (*RED, 255))).getpixel((0, 0)) == RED
    assert load_image(Image.new("LA", (4, 3), (0, 0))).getpixel((0, 0)) == (255, 255, 255)
    indexed = as_png(Image.new("P", (4, 3), 0), transparency=0)
    assert load_image(indexed).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_clipped():
    grey = Image.fromarray(np.array([[0, 257, 30000, 65535]], dtype=np.uint16))
    sources: list[ImageSource] = [
        grey,
        as_png(grey),
        Image.fromarray(np.array([[0, 257, 30000, 65535]], dtype=np.int32)),
    ]
    for source in sources:
        assert np.asarray(load_image(source))[0, :, 0].tolist() == [0, 1, 117, 255]


def exif_of(orientation: int, note: bytes = b"") -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if note:
        exif[0x927C] = note
    return exif


# What each orientation does to stored pixels so that they are seen upright.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(form, orientation):
    stored = np.full((16, 32, 3), 128, np.uint8)
    stored[:8, :16], stored[8:, :16], stored[:8, 16:] = RED, GREEN, (0, 0, 0)  # in the blocks of a JPEG
    forms: dict[str, dict[str, Any]] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    content = encoded(Image.fromarray(stored), form, exif=exif_of(orientation), **forms.get(form, {}))
    expected = UPRIGHT[orientation](stored)
    seen = np.asarray(load_image(content))
    assert seen.shape == expected.shape
    assert read_image_size(content) == expected.shape[:2]
    assert np.abs(seen.astype(int) - expected).max() <= (3 if form == "JPEG" else 0)  # JPEG is lossy


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(photo, orientation):
    content = as_png(photo, exif=exif_of(orientation))
    assert np.array_equal(np.asarray(load_image(content)), np.asarray(photo))


def test_much_metadata_is_no_hindrance(photo):
    largest = encoded(photo, "JPEG", exif=exif_of(6, note=b"x" * 64_000))
    huge = as_png(photo, exif=exif_of(6, note=b"x" * 3_000_000))
    for content in (largest, huge):
        assert load_image(content).size == (3, 5)
        assert read_image_size(content) == (5, 3)


def test_colour_profiles_are_not_applied(photo):
    # As in the original. A damaged one is no reason to refuse a picture.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for icc in (profile, b"no profile" * 1000):
        assert np.array_equal(np.asarray(load_image(as_png(photo, icc_profile=icc))), np.asarray(photo))


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 3), color) for color in (RED, GREEN)]
    for name in ("moving.gif", "moving.webp", "moving.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        with Image.open(tmp_path / name) as image:
            image.seek(1)  # there is another
        assert np.abs(np.array(load_image(tmp_path / name).getpixel((1, 1))) - RED).max() <= 8  # GIF's palette
    with Image.open(tmp_path / "moving.webp") as image:
        image.seek(1)
        assert load_image(image).getpixel((1, 1)) == GREEN


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "cut.png").write_bytes(as_png(Image.effect_noise((90, 90), 50))[:3000])
    (tmp_path / "cut.jpg").write_bytes(encoded(Image.effect_noise((90, 90), 50), "JPEG")[:-900])
    (tmp_path / "cut.webp").write_bytes(encoded(Image.effect_noise((90, 90), 50), "WEBP")[:-900])
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (tmp_path / "empty.jpg").write_bytes(b"")
    cases = {
        "cut.png": "cannot be read as an image",
        "cut.jpg": "truncated",
        "cut.webp": "cannot be read as an image",
        "page.jpg": r"is no image of a known format \(it begins with b'<!DOCTYPE html>.*; replace the file",
        "empty.jpg": "is empty; replace the file or drop its record",
        "absent.jpg": "no such file",
        ".": "is a folder",
        "page.jpg/below": "cannot be read",
        "a\0b": "null byte",
    }
    for name, problem in cases.items():
        with pytest.raises(ImageError, match=problem) as error:
            load_image(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ")
    with pytest.raises(ImageError, match=r"^record 7: is no image"):
        load_image(b"no image", "record 7")


def test_nothing_is_downloaded():
    with pytest.raises(ImageError, match=r"nothing is downloaded.*local path"):
        load_image("https://example.org/cat.jpg")
    with pytest.raises(ImageError, match=r"is a URL; give a local path"):
        load_image("file:///cat.jpg")
    with pytest.raises(ImageError, match=r"is a URL; give a local path, or the file's bytes") as error:
        load_image("data:image/png;base64," + 9000 * "A")
    assert len(str(error.value)) < 300


@contextmanager
def as_nobody() -> Iterator[None]:
    """The superuser may read everything, so it becomes another user for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such permissions")
def test_a_file_that_may_not_be_read_is_named(photo, tmp_path):
    path = tmp_path / "secret.png"
    photo.save(path)
    path.chmod(0)
    with as_nobody(), pytest.raises(ImageError, match=r"secret.png: may not be read; give this user the permission"):
        load_image(path)


def test_decompression_bombs_are_refused(photo, tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    photo.save(path)
    for limit in (10, 5):  # Pillow itself warns above the limit and refuses above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for read in (load_image, read_image_size):
            with pytest.raises(ImageError, match=rf"bomb.png: more than {limit} pixels; scale it down"):
                read(path)
            with pytest.raises(ImageError, match=r"image 3: 5x3 pixels exceed the limit"):
                read(photo, "image 3")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            np.zeros((3, 5, 2), np.uint8),
            r"uint8 \(3, 5, 2\); expected uint8 \(height, width, channels\) with 1, 3 or 4",
        ),
        (np.zeros((3, 6, 5), np.uint8), r"uint8 \(3, 6, 5\); expected uint8 \(height, width, channels\)"),
        (np.zeros((2, 3, 5, 3), np.uint8), r"uint8 \(2, 3, 5, 3\); expected"),
        (np.zeros(15, np.uint8), r"uint8 \(15,\); expected"),
        (np.zeros((3, 5, 3), np.float32), "array is float32"),
        (np.zeros((3, 5), np.uint16), "array is uint16"),
        (np.zeros((3, 5), bool), "array is bool"),
        (np.zeros((0, 5, 3), np.uint8), "5x0 pixels have no area"),
        (Image.new("RGB", (0, 4)), "0x4 pixels have no area"),
        (torch.zeros(3, 4, 0), "0x4 pixels have no area"),
        (torch.zeros(5, 6, 3), r"tensor is float32 \(5, 6, 3\); expected \(channels, height, width\) with 1, 3 or 4"),
        (torch.zeros(1, 3, 5, 6), r"tensor is float32 \(1, 3, 5, 6\); expected"),
        (torch.zeros(3, 4, 5, dtype=torch.bool), "tensor is bool"),
        (torch.full((4, 5), -0.1), r"tensor is float32 \(4, 5\) with values -0.1 to -0.1"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), "tensor is int64"),
        (torch.full((3, 4, 5), 7.0), "values 7 to 7; expected floats in"),
        (torch.full((3, 4, 5), torch.nan), "expected floats in"),
        (Image.new("F", (4, 3)), "no agreed range"),
        (Image.fromarray(np.array([[70000]], np.int32)), "exceed 16 bits"),
        (17, "int is no image"),
    ],
)
def test_arrays_of_other_shapes_and_ranges_are_refused(source, problem):
    with pytest.raises(ImageError, match=rf"image 2: .*{problem}"):
        load_image(source, "image 2")


def test_padding_is_centred_with_the_remainder_behind():
    wide = pad_to_square(Image.new("RGB", (5, 2), RED), GREEN)
    assert [wide.getpixel((0, y)) for y in range(5)] == [GREEN, RED, RED, GREEN, GREEN]
    tall = pad_to_square(Image.new("RGB", (3, 4), RED), GREEN)
    assert [tall.getpixel((x, 0)) for x in range(4)] == [RED, RED, RED, GREEN]


def test_the_padding_colour_is_the_mean_or_the_chosen_one():
    assert PixelSpec(**CLIP).fill == (122, 114, 102)  # rounded down, as the original does
    assert PixelSpec(**SIGLIP, pad_color=(122, 116, 104)).fill == (122, 116, 104)


def test_pixels_are_normalised_per_encoder(photo):
    batch = CambrianImageProcessor([CLIP, SIGLIP])([Image.new("RGB", (9, 9), RED), photo])
    assert [tuple(pixels.shape) for pixels in batch["pixel_values"]] == [(2, 3, 6, 6), (2, 3, 10, 10)]
    assert batch["image_sizes"].tolist() == [[9, 9], [3, 5]]
    for pixels, spec in zip(batch["pixel_values"], (CLIP, SIGLIP), strict=True):
        expected = (torch.tensor(RED) / 255 - torch.tensor(spec["mean"])) / torch.tensor(spec["std"])
        assert torch.allclose(pixels[0, :, 3, 2], expected, atol=1e-6)  # float32 rounding
        assert pixels.dtype == torch.float32


def test_encoders_that_prepare_alike_share_one_computation(photo):
    first, other, second = CambrianImageProcessor([CLIP, SIGLIP, CLIP])([photo])["pixel_values"]
    assert first is second
    assert other is not first


def test_no_pictures_give_empty_tensors():
    batch = CambrianImageProcessor([CLIP, SIGLIP])([])
    assert [tuple(pixels.shape) for pixels in batch["pixel_values"]] == [(0, 3, 6, 6), (0, 3, 10, 10)]
    assert batch["image_sizes"].shape == (0, 2)


def test_a_very_long_picture_needs_no_giant_square(monkeypatch):
    monkeypatch.setattr("cambrian_model.processing.images._LONGEST_SIDE", 300)
    strip = Image.new("RGB", (60_000, 1), RED)
    batch = CambrianImageProcessor([CLIP])(strip)
    assert batch["image_sizes"].tolist() == [[1, 60_000]]
    assert torch.isfinite(batch["pixel_values"][0]).all()


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (2, 4999)])
def test_extreme_pictures_become_pixels(size):
    batch = CambrianImageProcessor([CLIP, SIGLIP])(Image.new("RGB", size, RED))
    assert batch["image_sizes"].tolist() == [[size[1], size[0]]]
    fill = (torch.tensor([122, 114, 102]) / 255 - torch.tensor(CLIP["mean"])) / torch.tensor(CLIP["std"])
    (pixels,) = batch["pixel_values"][0]
    assert torch.isfinite(pixels).all()
    if max(size) > 1:  # the corner shows padding alone
        assert torch.allclose(pixels[:, 0, 0], fill, atol=1e-6)  # float32 rounding


def test_a_bad_picture_is_named_by_its_position(photo):
    with pytest.raises(ImageError, match="image 1: "):
        CambrianImageProcessor([CLIP])([photo, b"nothing"])


def test_settings_survive_saving(photo, tmp_path):
    processor = CambrianImageProcessor([CLIP, {**SIGLIP, "pad_color": (1, 2, 3)}])
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "preprocessor_config.json").is_file()
    again = CambrianImageProcessor.from_pretrained(tmp_path)
    assert again.specs == processor.specs
    for ours, theirs in zip(processor(photo)["pixel_values"], again(photo)["pixel_values"], strict=True):
        assert torch.equal(ours, theirs)


def test_settings_come_from_the_model():
    encoder = {"library": "timm", "name": "x", "width": 4, "grid_side": 2, **CLIP}
    config = CambrianConfig(
        text_config={"model_type": "llama", "num_hidden_layers": 1},
        vision_encoders=[encoder],
        connector={"width": 8, "num_heads": 2, "query_grid_sides": [2]},
        grid_side=2,
    )
    assert CambrianImageProcessor.from_config(config).specs == [PixelSpec(**CLIP)]


def test_unknown_settings_are_refused(photo):
    with pytest.raises(ConfigError, match='unknown interpolation "bicubc"; did you mean "bicubic"'):
        CambrianImageProcessor([{**CLIP, "interpolation": "bicubc"}])
    with pytest.raises(ConfigError, match=r'encoders\[0\]: unknown key "sides"'):
        CambrianImageProcessor([{**CLIP, "sides": 3}])
    with pytest.raises(TypeError, match="do_resize"):
        CambrianImageProcessor([CLIP])(photo, do_resize=False)


def test_real_photographs_load_and_their_headers_tell_their_size(assets: Path):
    photos = sorted((assets / "coco" / "images").glob("*.jpg"))[:5]
    for path in photos:
        picture = load_image(path)
        assert read_image_size(path) == (picture.height, picture.width)
        (pixels,) = prepare_pixels(picture, [PixelSpec(**CLIP)])
        assert pixels.shape == (3, 6, 6)
