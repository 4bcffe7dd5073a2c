from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from dataset.files.decode import decode_files
from errors import UserError, warn

SIDE = 8


def gray16(path: Path, brightest: int) -> np.ndarray:
    """A 16-bit grey image whose values rise from 0 to `brightest`; gives them."""
    values = np.linspace(0, brightest, SIDE**2).round().astype(np.uint16).reshape(SIDE, SIDE)
    Image.fromarray(values).save(path)
    return values


def colour16(path: Path, brightest: int) -> None:
    """A 16-bit RGB PNG, which Pillow reads but does not write."""
    values = np.linspace(0, brightest, 3 * SIDE**2).round().astype(">u2").reshape(SIDE, SIDE, 3)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("brightest", "depth"), [(255, 8), (1023, 10), (4095, 12), (16000, 14), (65535, 16)])
def test_sixteen_bits_are_scaled_by_what_is_in_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], brightest: int, depth: int
) -> None:
    # Before, 8 bits of 16 became black, and 12 bits one sixteenth as bright.
    warn.cache_clear()
    values = gray16(tmp_path / "a.png", brightest)
    darker = gray16(tmp_path / "b.png", brightest // 3)  # scaled like the others, not by its own range
    bright, dark = decode_files([tmp_path / "a.png", tmp_path / "b.png"], SIDE)
    assert np.array_equal(bright[0], values >> (depth - 8)) and np.array_equal(dark[1], darker >> (depth - 8))
    assert (f"use {depth} bits" in capsys.readouterr().err) == (depth < 16)


def test_the_depth_can_be_said_and_must_hold_every_value(tmp_path: Path) -> None:
    values = gray16(tmp_path / "a.png", 900)
    assert np.array_equal(decode_files([tmp_path / "a.png"], SIDE, 16)[0][0], values >> 8)
    with pytest.raises(UserError, match=r"data\.bit_depth 8: an image has the value 900"):
        decode_files([tmp_path / "a.png"], SIDE, 8)


def test_colours_that_would_turn_black_are_refused(tmp_path: Path) -> None:
    colour16(tmp_path / "a.png", 65535)
    assert decode_files([tmp_path / "a.png"], SIDE).max() == 255
    colour16(tmp_path / "a.png", 4095)
    with pytest.raises(UserError, match=r"a\.png: 16-bit colours with 12 bits in use"):
        decode_files([tmp_path / "a.png"], SIDE)
    assert decode_files([tmp_path / "a.png"], SIDE, 16).max() == 15


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_black_ink_on_nothing_lies_on_white(tmp_path: Path, mode: str) -> None:
    # Before, it became one flat black.
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[2:4] = 255
    alpha[6] = 128
    ink = Image.merge(mode, [*[Image.new("L", (SIDE, SIDE), 0)] * (len(mode) - 1), Image.fromarray(alpha)])
    ink.save(tmp_path / "a.png")
    pixels = decode_files([tmp_path / "a.png"], SIDE)[0]
    assert (pixels[:, 2:4] == 0).all() and (pixels[:, :2] == 255).all() and (pixels[:, 6] == 127).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
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
    pixels = decode_files([tmp_path / "a.jpg"], SIDE)[0]
    assert np.abs(pixels.astype(int) - upright.transpose(2, 0, 1)).max() < 8


def test_an_image_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "a.png")
    for limit in (SIDE * SIDE - 1, SIDE * SIDE // 2 - 1):  # where Pillow warns, and where it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UserError, match=rf"a\.png has more than {limit} pixels, .*make it smaller"):
            decode_files([tmp_path / "a.png"], SIDE)


@pytest.mark.parametrize("size", [(31, 20), (20, 31), (9, 9), (8, 13), (5, 7)])
def test_a_crop_is_torchvisions_resize_and_centre_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = transforms.CenterCrop(SIDE)(transforms.Resize(SIDE)(Image.fromarray(values)))
    cropped = decode_files([tmp_path / "a.png"], SIDE, resize="crop")[0]
    assert np.array_equal(cropped, np.asarray(expected).transpose(2, 0, 1))
    squashed = np.asarray(Image.fromarray(values).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    assert np.array_equal(decode_files([tmp_path / "a.png"], SIDE)[0], squashed.transpose(2, 0, 1))
