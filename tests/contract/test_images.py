"""What is verified is what a model is shown: both packages read a picture alike, and refuse the same files."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cambrian_data
from cambrian_data import DataError
from cambrian_model.errors import CambrianModelError
from cambrian_model.processing import load_image, read_image_size

MUTANTS = 40


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def rgba() -> Image.Image:
    return Image.fromarray(noise(13, 17, 4))


def rgb() -> Image.Image:
    return Image.fromarray(noise(13, 17, 3))


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def late_orientation() -> bytes:
    """A PNG that says only after its pixels which side is up."""
    plain, told = encoded(rgb(), "PNG"), encoded(rgb(), "PNG", exif=turned(6))
    start = told.index(b"eXIf") - 4
    chunk = told[start : start + 12 + int.from_bytes(told[start : start + 4], "big")]
    return plain[:-12] + chunk + plain[-12:]  # before IEND


PICTURES = {
    "RGB": encoded(rgb(), "PNG"),
    "RGBA": encoded(rgba(), "PNG"),
    "LA": encoded(rgba().convert("LA"), "PNG"),
    "P": encoded(rgb().quantize(), "PNG"),
    "P with a transparent colour": encoded(rgb().quantize(8), "PNG", transparency=3),
    "P with an opacity for each colour": encoded(rgb().quantize(8), "PNG", transparency=bytes(range(0, 256, 32))),
    "RGB with a transparent colour": encoded(Image.new("RGB", (3, 2), "red"), "PNG", transparency=(255, 0, 0)),
    "1": encoded(rgb().convert("1"), "PNG"),
    "I;16": encoded(Image.fromarray(noise(13, 17, 2).view(np.uint16)[..., 0]), "PNG"),
    "I;16 TIFF": encoded(Image.fromarray(noise(13, 17, 2).view(np.uint16)[..., 0]), "TIFF"),
    "I TIFF": encoded(Image.fromarray(noise(13, 17).astype(np.int32) * 257), "TIFF"),
    "CMYK": encoded(rgb().convert("CMYK"), "JPEG"),
    "animation": encoded(rgb().quantize(), "GIF", save_all=True, append_images=[Image.new("RGB", (17, 13))]),
    **{f"JPEG turned {way}": encoded(rgb(), "JPEG", exif=turned(way)) for way in range(1, 9)},
    **{f"TIFF turned {way}": encoded(rgba(), "TIFF", exif=turned(way)) for way in range(1, 9)},
    "PNG turned": encoded(rgba(), "PNG", exif=turned(6)),
    "PNG turned at its end": late_orientation(),
    "WebP turned": encoded(rgba(), "WEBP", exif=turned(6)),
}


@pytest.mark.parametrize("content", PICTURES.values(), ids=PICTURES.keys())
def test_both_packages_read_the_same_pixels(tmp_path, content):
    path = tmp_path / "picture"
    path.write_bytes(content)
    ours, theirs = cambrian_data.load_image(path), load_image(path)
    assert (ours.mode, ours.size) == (theirs.mode, theirs.size)
    assert ours.tobytes() == theirs.tobytes()
    assert cambrian_data.verify(path) == ours.size
    assert read_image_size(path) == (ours.height, ours.width)


def test_both_packages_refuse_floating_point_pixels_in_the_same_words(tmp_path):
    path = tmp_path / "depth.tif"
    Image.new("F", (4, 3), 0.5).save(path)
    assert refusal(cambrian_data.verify, path) == refusal(load_image, path)
    assert "floating-point pixels have no agreed range" in str(refusal(load_image, path))


def refusal(read, path: Path) -> str | None:
    """What the reader says against the file; anything but an error of its package passes through."""
    try:
        read(path)
    except (DataError, CambrianModelError) as error:
        return str(error)
    return None


def mutants(content: bytes, seed: int):
    """The file with a few bytes changed, most of them near its beginning, and some of it cut off."""
    chance = random.Random(seed)
    for _ in range(MUTANTS):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 2, 4, 16])):
            damaged[chance.randrange(min(len(damaged), chance.choice([100, 10_000])))] = chance.randrange(256)
        yield bytes(damaged[: chance.randrange(1, len(damaged))] if chance.random() < 0.3 else damaged)


def test_no_package_has_another_program_draw_a_picture(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(rgb(), "EPS"))
    for read in (cambrian_data.load_image, cambrian_data.image_size, load_image, read_image_size):
        assert "EPS" in str(refusal(read, path))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on damaged metadata
@pytest.mark.parametrize(
    "content",
    [
        encoded(rgba(), "PNG", exif=turned(6)),
        encoded(rgb(), "JPEG", exif=turned(6)),
        encoded(rgb().quantize(), "GIF"),
        encoded(rgba(), "WEBP", exif=turned(6)),
        encoded(rgba(), "TIFF", exif=turned(6)),
        encoded(rgba(), "TIFF", compression="tiff_lzw"),
    ],
    ids=["PNG", "JPEG", "GIF", "WebP", "TIFF", "TIFF LZW"],
)
def test_damaged_files_are_refused_by_both_packages_or_by_neither(tmp_path, content):
    path = tmp_path / "damaged"
    refused = 0
    for number, damaged in enumerate(mutants(content, seed=0)):
        path.write_bytes(damaged)
        ours, theirs = refusal(cambrian_data.load_image, path), refusal(load_image, path)
        assert (ours is None) == (theirs is None), f"mutant {number}: {ours} / {theirs}"
        assert str(path) in (ours or str(path))
        refused += ours is not None
        for read in (cambrian_data.image_size, read_image_size):
            refusal(read, path)
    assert refused >= 5


@pytest.mark.parametrize(
    "error", [RuntimeError, KeyError, IndexError, OverflowError, SyntaxError, Image.DecompressionBombError]
)
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, error):
    path = tmp_path / "picture.png"
    path.write_bytes(PICTURES["RGB"])

    def fail(*_):
        raise error("broken")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", fail)
    for read in (cambrian_data.verify, load_image):
        assert str(path) in str(refusal(read, path))
