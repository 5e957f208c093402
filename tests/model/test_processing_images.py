"""Pictures become pixels: every form and colour mode, padding, and errors that name the culprit."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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


def as_png(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


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


def test_modes_become_rgb():
    plain = Image.new("RGB", (4, 3), RED)
    palette = plain.convert("P", palette=Image.Palette.ADAPTIVE)
    for image in [palette, plain.convert("CMYK"), plain.convert("YCbCr")]:
        # JPEG's and print's colour spaces round to a few grey levels
        assert np.abs(np.asarray(load_image(image)).astype(int) - RED).max() <= 4
    assert load_image(Image.new("L", (4, 3), 77)).getpixel((0, 0)) == (77, 77, 77)
    assert load_image(Image.new("1", (4, 3), 1)).getpixel((0, 0)) == (255, 255, 255)


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


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (8, 4), RED)
    image.paste(GREEN, (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by a quarter to see it upright
    for name in ("turned.jpg", "turned.png", "turned.tif"):
        image.save(tmp_path / name, exif=exif, quality=100)
        upright = load_image(tmp_path / name)
        assert upright.size == (4, 8)
        assert read_image_size(tmp_path / name) == (8, 4)
        assert np.abs(np.array(upright.getpixel((2, 1))) - GREEN).max() < 20  # JPEG is lossy


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 3), color) for color in (RED, GREEN)]
    for name in ("moving.gif", "moving.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert np.abs(np.array(load_image(tmp_path / name).getpixel((1, 1))) - RED).max() <= 8  # GIF's palette


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "cut.png").write_bytes(as_png(Image.effect_noise((90, 90), 50))[:3000])
    jpeg = io.BytesIO()
    Image.effect_noise((90, 90), 50).save(jpeg, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(jpeg.getvalue()[:-900])
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    cases = {"cut.png": "cannot be read", "cut.jpg": "truncated", "notes.txt": "cannot identify", "empty.jpg": "cannot"}
    for name, problem in {**cases, "absent.jpg": "no such file", ".": "is a folder"}.items():
        with pytest.raises(ImageError, match=problem) as error:
            load_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    with pytest.raises(ImageError, match=r"record 7: cannot be read"):
        load_image(b"no image", "record 7")
    with pytest.raises(ImageError, match=r"nothing is downloaded.*local path"):
        load_image("https://example.org/cat.jpg")


def test_decompression_bombs_are_refused(photo, tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    photo.save(path)
    for limit in (10, 5):  # Pillow itself warns above the limit and refuses above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ImageError, match=r"bomb.png.*exceed"):
            load_image(path)
        with pytest.raises(ImageError, match=r"image 3: 5x3 pixels exceed the limit"):
            load_image(photo, "image 3")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (np.zeros((3, 5, 4), np.uint8), r"uint8 \(3, 5, 4\); expected uint8 \(height, width, 3\)"),
        (np.zeros((3, 5, 3), np.float32), "array is float32"),
        (np.zeros((0, 5, 3), np.uint8), "5x0 pixels have no area"),
        (Image.new("RGB", (0, 4)), "0x4 pixels have no area"),
        (torch.zeros(3, 4, 0), "0x4 pixels have no area"),
        (torch.zeros(4, 4, 3), r"tensor is float32 \(4, 4, 3\); expected \(3, height, width\)"),
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
