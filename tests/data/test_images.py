"""Image files: confined to their folder, whole, and never replaced."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cambrian_data import DataError, ImageError, image_size, load_image, locate, verify

SHARED = Path(__file__).parents[2].parent / "shared"


def picture(path, size=(7, 5), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize(size).convert("RGB").save(path, **options)
    return path


def test_a_path_inside_the_folder_is_found(tmp_path):
    path = picture(tmp_path / "coco" / "a.png")
    assert locate(tmp_path, "coco/a.png") == path.resolve()


@pytest.mark.parametrize(
    ("relative", "problem"),
    [
        ("../secret.png", r'through "\.\."'),
        ("coco/../../secret.png", r'through "\.\."'),
        ("coco/../a.png", r'through "\.\."'),
        ("..\\secret.png", r'through "\.\."'),
        ("/etc/passwd", "is absolute"),
        ("C:\\secret.png", "is absolute"),
        ("a\0.png", "broken by a NUL"),
        ("", "is empty"),
        ("https://example.org/cat.jpg", "is a URL; images are local files"),
        ("data:image/png;base64,iVBO", "is a URL; images are local files"),
        ("\ud800.png", "leads nowhere"),
    ],
)
def test_a_path_that_leaves_its_folder_is_refused_by_name(tmp_path, relative, problem):
    with pytest.raises(ImageError, match=problem) as caught:
        locate(tmp_path, relative)
    assert repr(relative) in str(caught.value)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    secret = picture(tmp_path / "secret.png")
    root = tmp_path / "images"
    root.mkdir()
    (root / "a.png").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path)
    for relative in ("a.png", "folder/secret.png"):
        with pytest.raises(ImageError, match=f"image path '{relative}' leaves its folder through a link"):
            locate(root, relative)


def test_links_inside_the_folder_and_a_linked_folder_are_fine(tmp_path):
    path = picture(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "b.png").symlink_to(path)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    assert locate(tmp_path / "link", "b.png") == path.resolve()


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ImageError, match=r"a/c\.png|a/c'"):
        verify(locate(tmp_path, "a/c.png"))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.bmp"])
def test_whole_pictures_pass(tmp_path, name):
    path = picture(tmp_path / name)
    assert verify(path) == image_size(path) == (7, 5)
    loaded = load_image(path)
    assert (loaded.mode, loaded.size) == ("RGB", (7, 5))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_pictures_are_refused(tmp_path, name, part):
    path = picture(tmp_path / name, (64, 64))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ImageError, match=name):
        verify(path)


def test_a_name_too_long_for_the_disk_is_refused(tmp_path):
    with pytest.raises(ImageError, match="aaaa"):
        verify(locate(tmp_path, "a" * 5000))


def test_a_missing_picture_is_named(tmp_path):
    for read in (verify, image_size, load_image):
        with pytest.raises(ImageError, match=r"a.png: there is no such file"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"<html>404 not found</html>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.jpg: "):
        verify(path)


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(ImageError, match="cannot be read as a picture"):
        verify(tmp_path)


def header_only_png(width, height):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_000, 10_000), (30_000, 30_000)])
def test_a_pixel_bomb_is_refused_before_it_is_decoded(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(header_only_png(*size))
    for read in (verify, image_size):
        with pytest.raises(ImageError, match=r"bomb.png: .*89,478,485 pixels"):
            read(path)


def test_a_picture_without_pixels_is_refused(tmp_path):
    path = tmp_path / "flat.png"
    path.write_bytes(header_only_png(0, 5))
    with pytest.raises(ImageError, match=r"flat.png"):
        verify(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_and_pixels_are_those_of_the_upright_picture(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = picture(tmp_path / name, (7, 5), exif=exif)
    expected = (5, 7) if orientation >= 5 else (7, 5)
    assert image_size(path) == verify(path) == load_image(path).size == expected


def test_turning_follows_the_exif_orientation(tmp_path):
    image = Image.new("RGB", (16, 8), "black")
    image.paste("white", (0, 0, 8, 8))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows run down the right side
    image.save(tmp_path / "a.png", exif=exif)
    upright = load_image(tmp_path / "a.png")
    assert upright.getpixel((4, 2)) == (255, 255, 255)  # what was left is on top
    assert upright.getpixel((4, 13)) == (0, 0, 0)


def test_a_palette_with_transparency_loads_without_a_warning(tmp_path):
    image = Image.new("P", (4, 4))
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    assert load_image(tmp_path / "a.png").mode == "RGB"


def test_transparency_lies_over_white(tmp_path):
    Image.new("RGBA", (4, 3), (200, 30, 10, 0)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 257, 30000, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(load_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 1, 117, 255]
    Image.fromarray(np.array([[70000]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif: grey values 70000 to 70000 exceed 16 bits"):
        verify(tmp_path / "a.tif")


def test_floating_point_pixels_are_refused(tmp_path):
    Image.new("F", (4, 3), 0.5).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif: floating-point pixels have no agreed range; save it with 8 or 16"):
        verify(tmp_path / "a.tif")


def test_real_photographs_pass():
    photos = SHARED / "assets" / "photos"
    if not photos.exists():
        pytest.skip("needs ../shared/assets/photos, which is absent")
    for path in sorted(photos.iterdir()):
        assert min(verify(path)) > 100


def test_image_errors_are_data_errors():
    assert issubclass(ImageError, DataError)
