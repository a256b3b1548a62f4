"""Image files become what a viewer shows, in 8 bits, or one line that names the file."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from jaxrobust import data
from jaxrobust.data import _decode

RAMP = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
LEVELS = np.round(RAMP.astype(float) * 255 / 65535).astype(np.uint8)
HALVES = np.zeros((8, 16, 3), np.uint8)
HALVES[:, 8:] = 255


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content, *, channels=3, resize=None):
    return _decode.decode(content, where="it", channels=channels, resize=resize)


# ---- depth -------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(RAMP)),
        encoded(Image.fromarray(RAMP), "TIFF"),
        encoded(Image.fromarray(RAMP), "TIFF", compression="tiff_lzw"),
        b"P5 8 8 65535 " + RAMP.astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "compressed tiff", "pgm"],
)
def test_all_levels_of_16_bit_grey_are_kept(content, channels):
    pixels = decoded(content, channels=channels)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(
        pixels[..., :3], np.repeat(LEVELS[..., None], min(channels, 3), -1)
    )
    assert channels < 4 or (pixels[..., 3] == 255).all()
    assert len(np.unique(LEVELS)) == 64


def tiff(array, *, bits=16, photometric=1, sample_format=1, order="<"):
    """A TIFF of one uncompressed strip."""
    content = array.astype(array.dtype.newbyteorder(order)).tobytes()
    height, width = array.shape
    entries = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
    ]
    entries += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(content))]
    entries += [(339, 3, sample_format)]
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(content))
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, value in entries:
        packed = struct.pack(f"{order}HH" if kind == 3 else f"{order}I", *([value, 0][: 5 - kind]))
        directory += struct.pack(f"{order}HHI", tag, kind, 1) + packed
    return header + content + directory + bytes(4)


def test_byte_order_and_meaning_of_zero_in_16_bit_tiff():
    np.testing.assert_array_equal(decoded(tiff(RAMP, order=">"), channels=1)[..., 0], LEVELS)
    np.testing.assert_array_equal(decoded(tiff(RAMP, order="<"), channels=1)[..., 0], LEVELS)
    inverted = decoded(tiff(RAMP, photometric=0), channels=1)[..., 0]
    np.testing.assert_array_equal(inverted, LEVELS.max() - LEVELS)


def test_12_bit_tiff_reaches_white():
    # Two pixels in three bytes: 0xFFF and 0x800.
    packed = np.frombuffer(b"\xff\xf8\x00" * 2, np.uint8).reshape(2, 3)
    content = bytearray(tiff(packed, bits=12))
    where = content.index(struct.pack("<HHI", 256, 4, 1)) + 8
    content[where : where + 4] = struct.pack("<I", 2)  # pixels a row
    assert decoded(bytes(content), channels=1)[..., 0].tolist() == [[255, 128]] * 2


def png16(pixels, transparent=()):
    """A PNG of one row of 16-bit grey or colour, with a transparent one."""
    kind = 2 if pixels.ndim == 2 else 0
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", len(pixels), 1, 16, kind, 0, 0, 0))]
    chunks += [(b"tRNS", np.array(transparent, ">u2").tobytes())] if transparent else []
    chunks += [(b"IDAT", zlib.compress(b"\0" + pixels.astype(">u2").tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def test_16_bit_colour_keeps_its_upper_bits():
    pixels = np.array([[0, 257, 65535], [256, 511, 512]])
    assert decoded(png16(pixels)).tolist() == [[[0, 1, 255], [1, 1, 2]]]
    # A transparent colour of 16 bits cannot be found again among pixels of 8.
    with pytest.raises(ValueError, match="it must be an image with 8 bits per channel"):
        decoded(png16(pixels, transparent=(0, 257, 65535)))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (
            encoded(Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF"),
            "F",
        ),
        (encoded(Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8)), "TIFF"), "I"),
        (tiff(RAMP, sample_format=2), "I"),
        (tiff((RAMP >> 8).astype(np.uint8), bits=8, sample_format=2), "L"),
        (encoded(Image.new("LAB", (4, 4)), "TIFF"), "LAB"),
    ],
    ids=["float", "32-bit", "signed 16-bit", "signed 8-bit", "lab"],
)
def test_what_8_bits_cannot_hold_is_refused(content, mode, channels):
    with pytest.raises(
        ValueError, match=f"^it must be an image .* got TIFF of mode '{mode}'"
    ) as caught:
        decoded(content, channels=channels)
    assert "\n" not in str(caught.value)


# ---- orientation -------------------------------------------------------------------------------
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "TIFF tiff_lzw"])
def test_exif_orientation_is_applied(orientation, kind):
    corner = np.zeros((16, 32, 3), np.uint8)
    corner[:8, :8] = 255  # where the tag's table has row 0 and column 0
    exif = Image.Exif()
    exif[_decode.ORIENTATION] = orientation
    kind, *compression = kind.split()
    options = {"compression": compression[0]} if compression else {}
    pixels = decoded(encoded(Image.fromarray(corner), kind, exif=exif, **options))
    assert pixels.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
    top, left = {
        1: (1, 1),
        2: (1, 0),
        3: (0, 0),
        4: (0, 1),
        5: (1, 1),
        6: (1, 0),
        7: (0, 0),
        8: (0, 1),
    }[orientation]
    at = pixels[2 if top else -3, 2 if left else -3]
    assert at.min() > 200
    assert (pixels > 128).all(-1).sum() == 64


def test_an_image_with_damaged_exif_is_read():
    content = encoded(Image.fromarray(HALVES), "PNG", exif=b"Exif\0\0MM\0*damaged beyond repair")
    np.testing.assert_array_equal(decoded(content), HALVES)


# ---- colours -----------------------------------------------------------------------------------
def test_palettes_cmyk_and_bits():
    image = Image.fromarray(HALVES)
    for content in (
        encoded(image.convert("P")),
        encoded(image.convert("1")),
        encoded(image.convert("CMYK"), "TIFF"),
        encoded(image.quantize(2), "GIF"),
    ):
        np.testing.assert_array_equal(decoded(content), HALVES)
        np.testing.assert_array_equal(decoded(content, channels=1), HALVES[..., :1])


def transparent(kind):
    """Red that is opaque, half transparent and hidden, in one of the ways that files have."""
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 255, [255, 128, 0]
    image = Image.fromarray(rgba)
    if kind == "RGBA":
        return encoded(image)
    if kind == "WEBP":
        return encoded(image, "WEBP", lossless=True, exact=True)
    palette = Image.new("P", (3, 1))
    palette.putpalette([255, 0, 0] * 3)
    palette.putdata([0, 1, 2])
    return encoded(palette, transparency=bytes([255, 128, 0]))


@pytest.mark.parametrize("kind", ["RGBA", "P", "WEBP"])
def test_transparent_pixels_are_composited_on_black(kind):
    pixels = decoded(transparent(kind))[0]
    assert pixels.tolist() == [[255, 0, 0], [128, 0, 0], [0, 0, 0]]
    assert decoded(transparent(kind), channels=1)[0, 2].tolist() == [0]
    assert decoded(transparent(kind), channels=4)[0, :, 3].tolist() == [255, 128, 0]


def test_a_transparent_colour_or_grey_is_black():
    rgb = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8))
    assert decoded(encoded(rgb, transparency=(9, 8, 7))).tolist() == [[[0, 0, 0], [1, 2, 3]]]
    grey = Image.fromarray(np.array([[200, 100]], np.uint8))
    assert decoded(encoded(grey, transparency=200), channels=1).ravel().tolist() == [0, 100]
    deep = png16(np.array([51400, 25700]), transparent=(51400,))
    assert decoded(deep, channels=1).ravel().tolist() == [0, 100]


def test_grey_with_alpha():
    two = Image.merge("LA", [Image.new("L", (2, 1), 200), Image.new("L", (2, 1), 0)])
    assert decoded(encoded(two), channels=1).ravel().tolist() == [0, 0]
    two = Image.merge("LA", [Image.new("L", (2, 1), 200), Image.new("L", (2, 1), 255)])
    assert decoded(encoded(two), channels=1).ravel().tolist() == [200, 200]


def test_the_first_frame_of_an_animation():
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.unique(decoded(content)).tolist() == [10]


# ---- size --------------------------------------------------------------------------------------
def test_resize_keeps_proportions_and_takes_the_centre():
    wide = np.zeros((100, 200, 3), np.uint8)
    wide[:, 75:125] = 255  # half of a centred square
    for array in (wide, wide.transpose(1, 0, 2)):
        pixels = decoded(encoded(Image.fromarray(array)), resize=(32, 32))
        assert pixels.shape == (32, 32, 3)
        row = pixels[16] if array is wide else pixels[:, 16]
        assert (row[:, 0] > 128).sum() == 16
    # To another shape: a 100 x 200 image covers 20 x 30 as 20 x 40.
    pixels = decoded(encoded(Image.fromarray(wide)), resize=(20, 30))
    assert pixels.shape == (20, 30, 3)
    assert (pixels[10, :, 0] > 128).sum() == 10
    small = decoded(encoded(Image.fromarray(wide)), resize=(200, 200))
    assert (small[100, :, 0] > 128).sum() == 100


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (6, 6), (3, 250), (333, 500), (500, 375)])
@pytest.mark.parametrize("size", [(4, 4), (6, 6), (64, 64), (3, 9), (9, 3)])
def test_every_shape_covers_every_size(shape, size):
    constant = Image.new("RGB", shape[::-1], (50, 100, 150))
    pixels = np.asarray(_decode.covering(constant, size))
    assert pixels.shape == (*size, 3)
    assert (pixels == [50, 100, 150]).all()  # no border was padded


def test_a_square_size_is_resize_and_center_crop():
    # torchvision: the long side is int(size * long / short), the crop starts at round(rest / 2).
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (53, 91, 3)).astype(np.uint8))
    wanted = image.resize((int(24 * 91 / 53), 24), Image.Resampling.BILINEAR)
    left = round((wanted.width - 24) / 2)
    wanted = wanted.crop((left, 0, left + 24, 24))
    np.testing.assert_array_equal(decoded(encoded(image), resize=(24, 24)), np.asarray(wanted))


@pytest.mark.parametrize("resize", [0, -3, True, 2.5, (3,), (3, 4, 5), (0, 4), (4, True), "4"])
def test_sizes_that_are_none(tmp_path, resize):
    with pytest.raises(ValueError, match="resize must be a number of pixels or .* got"):
        data.folder_source(str(tmp_path), resize=resize)


# ---- damage ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9])
def test_files_that_are_cut_short_are_named_in_one_line(kind, keep):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    content = encoded(Image.fromarray(pixels), kind)
    with pytest.raises(ValueError, match="^it is no readable image: .") as caught:
        decoded(content[: int(keep * len(content))])
    assert "\n" not in str(caught.value)


def test_any_error_of_a_decoder_names_the_file(monkeypatch):
    def broken(self):
        raise struct.error("unpack requires a buffer\nof 4 bytes")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", broken)
    with pytest.raises(ValueError, match="^it is no readable image: unpack requires a buffer$"):
        decoded(encoded(Image.fromarray(HALVES)))


def test_an_image_that_announces_more_than_it_has_takes_no_memory(tmp_path):
    """A PNG of a few bytes whose header says 8,000 x 8,000."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 8_000, 8_000, 1, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9)))
    with pytest.raises(ValueError, match=r"\(8000, 8000\) pixels do not fit into \d+ bytes"):
        _decode.decode(png + chunk(b"IEND", b""), where="x.png", channels=1, resize=None)


def test_an_image_of_one_colour_is_small_and_is_read():
    content = io.BytesIO()
    Image.new("1", (4000, 4000)).save(content, "PNG", optimize=True)
    assert len(content.getvalue()) < 4000
    pixels = _decode.decode(content.getvalue(), where="x.png", channels=1, resize=None)
    assert pixels.shape == (4000, 4000, 1)
