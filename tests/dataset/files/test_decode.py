from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from dataset.files import decode
from dataset.files.class_folders import IMAGE_SUFFIXES
from dataset.files.decode import decode_files
from errors import UserError, warn

SIDE = 8


def decode_all(paths, *options, **named):
    """Return all decoded images, (N, 3, S, S)."""
    return np.concatenate(list(decode_files(paths, SIDE, *options, **named)))


def write_gray16(path, brightest):
    """Write a 16-bit grey image with values from 0 to `brightest`, and return them."""
    values = np.linspace(0, brightest, SIDE**2).round().astype(np.uint16).reshape(SIDE, SIDE)
    Image.fromarray(values).save(path)
    return values


@pytest.mark.parametrize(("brightest", "depth"), [(255, 8), (1023, 10), (4095, 12), (16000, 14), (65535, 16)])
def test_sixteen_bits_are_scaled_by_bits_in_use(tmp_path, capsys, brightest, depth) -> None:
    warn.cache_clear()
    values = write_gray16(tmp_path / "a.png", brightest)
    darker = write_gray16(tmp_path / "b.png", brightest // 3)  # scaled like the others, not by its own range
    bright, dark = decode_all([tmp_path / "a.png", tmp_path / "b.png"])
    assert np.array_equal(bright[0], values >> (depth - 8)) and np.array_equal(dark[1], darker >> (depth - 8))
    assert (f"use {depth} bits" in capsys.readouterr().err) == (depth < 16)


def test_a_given_depth_must_hold_every_value(tmp_path) -> None:
    values = write_gray16(tmp_path / "a.png", 900)
    assert np.array_equal(decode_all([tmp_path / "a.png"], 16)[0][0], values >> 8)
    with pytest.raises(UserError, match=r"data\.bit_depth 8: an image has the value 900"):
        decode_all([tmp_path / "a.png"], 8)
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg .*16-bit PNG with the suffix of a JPEG"):
        decode_all([tmp_path / "a.jpg"])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_any_mode_is_what_pillow_makes_of_it(tmp_path, mode) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    image = Image.fromarray(colours).convert(mode)
    image.save(tmp_path / "a.tif" if mode == "CMYK" else tmp_path / "a.png")
    pixels = decode_all(list(tmp_path.iterdir()))[0]
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_lie_on_white(tmp_path, mode) -> None:
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[2:4], alpha[6] = 255, 128
    ink = Image.merge(mode, [*[Image.new("L", (SIDE, SIDE), 0)] * (len(mode) - 1), Image.fromarray(alpha)])
    ink.save(tmp_path / "a.png")
    pixels = decode_all([tmp_path / "a.png"])[0]
    assert (pixels[:, 2:4] == 0).all() and (pixels[:, :2] == 255).all() and (pixels[:, 6] == 127).all()


def test_transparent_palette_entries_lie_on_white(tmp_path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    image = Image.fromarray(colours).quantize(16)
    image.save(tmp_path / "a.png", transparency=bytes(range(0, 256, 16)))
    alpha = (np.asarray(image) * 16)[None] / 255  # of each palette entry
    expected = alpha * np.asarray(image.convert("RGB")).transpose(2, 0, 1) + (1 - alpha) * 255
    assert np.abs(decode_all([tmp_path / "a.png"])[0] - expected).max() <= 1


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_range_are_refused(tmp_path, dtype) -> None:
    Image.fromarray(np.zeros((SIDE, SIDE), dtype)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif .*no fixed range"):
        decode_all([tmp_path / "a.tif"])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, orientation) -> None:
    upright = np.zeros((SIDE, SIDE, 3), np.uint8)
    upright[:4, :4] = 255  # bright at the top left
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "a.jpg", exif=exif, quality=100)
    pixels = decode_all([tmp_path / "a.jpg"])[0]
    assert np.abs(pixels.astype(int) - upright.transpose(2, 0, 1)).max() < 8


@pytest.mark.parametrize("limit", [SIDE * SIDE - 1, SIDE * SIDE // 2 - 1])  # where Pillow warns, and refuses
def test_an_image_bomb_is_refused(tmp_path, monkeypatch, limit) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match=rf"a\.png has more than {limit} pixels, .*make it smaller"):
        decode_all([tmp_path / "a.png"])


@pytest.mark.parametrize("size", [(31, 20), (20, 31), (9, 9), (8, 13), (5, 7)])
def test_resizing_is_pillows_and_cropping_torchvisions(tmp_path, size) -> None:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = transforms.CenterCrop(SIDE)(transforms.Resize(SIDE)(Image.fromarray(values)))
    cropped = decode_all([tmp_path / "a.png"], resize="crop")[0]
    assert np.array_equal(cropped, np.asarray(expected).transpose(2, 0, 1))
    squashed = np.asarray(Image.fromarray(values).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    assert np.array_equal(decode_all([tmp_path / "a.png"])[0], squashed.transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["EPS", "PCX", "ICO"])
def test_other_formats_are_not_opened_whatever_the_suffix(tmp_path, kind) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "a.png", format=kind)
    with pytest.raises(UserError, match=r"a\.png cannot be read as an image"):
        decode_all([tmp_path / "a.png"])


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_documented_format_is_read(tmp_path, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("1" if suffix == ".pbm" else "RGB", (SIDE, SIDE)).save(path)
    assert decode_all([path]).shape == (1, 3, SIDE, SIDE)


def test_a_strip_is_refused_before_it_is_enlarged(tmp_path) -> None:
    Image.new("L", (400_000, 1)).save(tmp_path / "a.png")
    assert decode_all([tmp_path / "a.png"]).shape == (1, 3, SIDE, SIDE)  # squashed
    with pytest.raises(UserError, match=r"a\.png .*crop would make 12,800,000 x 32 pixels"):
        list(decode_files([tmp_path / "a.png"], 32, resize="crop"))


def test_images_come_in_order_and_in_pieces(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(decode, "PIECE", 2 * 3 * SIDE**2)  # two images
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.new("RGB", (SIDE, SIDE), (number,) * 3).save(path)
    pieces = list(decode_files(paths, SIDE))
    assert [piece[:, 0, 0, 0].tolist() for piece in pieces] == [[0, 1], [2, 3], [4]]
