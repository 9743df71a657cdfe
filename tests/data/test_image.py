import functools
import io
import logging
import struct
import zlib

import cv2
import numpy as np
import pytest

from tests.data.pictures import (
    bmp,
    chunk,
    encoded,
    exif,
    noise,
    palette_png,
    segment,
    tiff,
    with_orientation,
    xmp,
)
from vitjax.data.codecs import image as codec
from vitjax.data.codecs.headers import read_header
from vitjax.data.codecs.image import Box, Picture, decode, read_image
from vitjax.data.source import BadImage


def read(tmp_path, data: bytes):
    path = tmp_path / "picture.bin"
    path.write_bytes(data)
    return read_image(str(path), "cat/picture")


def test_channels_are_red_green_blue(tmp_path):
    bgr = noise(5, 7)
    np.testing.assert_array_equal(read(tmp_path, encoded(".png", bgr)), bgr[..., ::-1])


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm"])
def test_formats(tmp_path, extension):
    smooth = np.full((20, 30, 3), (200, 100, 50), np.uint8)
    image = read(tmp_path, encoded(extension, smooth))
    assert image.shape == (20, 30, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - (50, 100, 200)).max() <= 6  # lossy formats


def test_gray_becomes_three_equal_channels(tmp_path):
    gray = noise(5, 7)[..., 0]
    image = read(tmp_path, encoded(".png", gray))
    np.testing.assert_array_equal(image, np.repeat(gray[..., None], 3, -1))


def test_alpha_is_dropped(tmp_path):
    bgr = noise(5, 7)
    rgba = np.concatenate([bgr, np.full((5, 7, 1), 128, np.uint8)], -1)
    np.testing.assert_array_equal(read(tmp_path, encoded(".png", rgba)), bgr[..., ::-1])


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_become_eight(tmp_path, channels):
    deep = np.random.default_rng(0).integers(0, 2**16, (5, 7, channels), dtype=np.uint16)
    image = read(tmp_path, encoded(".png", deep))
    assert image.dtype == np.uint8
    expected = np.broadcast_to(deep[..., ::-1], (5, 7, 3)) / 257
    assert np.abs(image - expected).max() <= 1


def test_palette(tmp_path):
    palette = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]])
    indices = np.random.default_rng(0).integers(0, 3, (5, 7))
    image = read(tmp_path, palette_png(palette, indices))
    np.testing.assert_array_equal(image, palette[indices])


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_turns_upright(tmp_path, orientation, turns):
    bgr = np.zeros((16, 32, 3), np.uint8)
    bgr[:, :16, 2] = 255  # the left half is red
    image = read(tmp_path, with_orientation(encoded(".jpg", bgr), orientation))
    upright = np.rot90(bgr[..., ::-1], turns)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() <= 3  # JPEG blurs the edge


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [4, 30, 0.5, 0.99, -1])
def test_truncated_files_are_refused_by_name(tmp_path, extension, kept):
    data = encoded(extension, noise(40, 30))
    end = int(kept * len(data)) if isinstance(kept, float) else kept
    with pytest.raises(BadImage, match="'cat/picture': it is truncated, damaged or") as error:
        read(tmp_path, data[:end])
    assert error.value.name == "cat/picture"


@pytest.mark.parametrize("data", [b"x", b"no image at all " * 50, b"\xff\xd8\xff", b"\x89PNG\r\n"])
def test_garbage_is_refused(tmp_path, data):
    with pytest.raises(BadImage, match="'cat/picture': it is truncated, damaged or"):
        read(tmp_path, data)


def test_empty_file_is_refused(tmp_path):
    with pytest.raises(BadImage, match="'cat/picture': the file is empty"):
        read(tmp_path, b"")


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(BadImage, match=r"nothing\.png': No such file"):
        read_image(str(tmp_path / "nothing.png"))


def test_bad_image_keeps_its_parts_and_says_them():
    error = BadImage("cat/1.jpg", "the file is empty")
    assert (error.name, error.reason) == ("cat/1.jpg", "the file is empty")
    assert str(error) == "Cannot read image 'cat/1.jpg': the file is empty."
    assert isinstance(error, ValueError)


# Files of every kind that is read, as Pillow, cv2 and the test itself write them; what they show is
# what Pillow shows.
H, W = 37, 53


def smooth(channels: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    found = cv2.resize(coarse, (W, H), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(found.reshape(H, W, channels))


def pillow(data: bytes) -> np.ndarray:
    """Pillow's pixels; its numbers of 16 gray bits are divided by 257, for it cuts them off."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I"):
        gray = np.rint(np.asarray(image, float) / 257).astype(int)
        return np.repeat(gray[..., None], 3, -1)
    return np.asarray(image.convert("RGB")).astype(int)


@functools.cache
def modes() -> dict:
    """Pictures of Pillow's modes."""
    from PIL import Image

    rgb = Image.fromarray(smooth(3))
    alpha = np.tile(np.linspace(-60, 315, W).clip(0, 255).astype(np.uint8), (H, 1))
    gray, alpha = rgb.convert("L"), Image.fromarray(alpha)
    deep = np.random.default_rng(0).integers(0, 65536, (H, W), dtype=np.uint16)
    return {
        "1": rgb.convert("1"), "L": gray, "LA": Image.merge("LA", [gray, alpha]),
        "P": rgb.quantize(200), "P 16": rgb.quantize(16), "P 4": rgb.quantize(4),
        "P 2": rgb.quantize(2), "RGB": rgb, "RGBA": Image.merge("RGBA", [*rgb.split(), alpha]),
        "CMYK": Image.frombytes("CMYK", (W, H), smooth(4).tobytes()), "I;16": Image.fromarray(deep),
        "YCbCr": rgb.convert("YCbCr"), "F": Image.fromarray(smooth(1)[..., 0].astype(np.float32)),
        "LAB": Image.frombytes("LAB", (W, H), smooth(3).tobytes()), "I": gray.convert("I"),
    }  # fmt: skip


def saved(mode: str, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    modes()[mode].save(buffer, kind, **options)
    return buffer.getvalue()


def turned(kind: str, orientation: int) -> bytes:
    from PIL import Image

    found = Image.Exif()
    found[0x0112] = orientation
    return saved("RGB", kind, exif=found)


def jpegs() -> dict[str, bytes]:
    plain, start = saved("RGB", "JPEG"), b"\xff\xd8"
    rest, scan = plain[2:], plain.index(b"\xff\xda")
    app_xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(6))
    icc = segment(0xE2, b"ICC_PROFILE\0\1\1" + b"a" * 60_000)
    long = exif(6, before=b"y" * 100)
    cmyk = saved("CMYK", "JPEG", quality=95)
    adobe = cmyk.index(b"\xff\xee")
    files = {f"4:{4 - s}:{4 - s}": saved("RGB", "JPEG", subsampling=s) for s in (0, 1, 2)}
    files |= {f"{mode}": saved(mode, "JPEG") for mode in ("L", "RGB", "CMYK")}
    files |= {f"{mode} progressive": saved(mode, "JPEG", progressive=True) for mode in ("L", "RGB")}
    files |= {f"turned {i}": turned("JPEG", i) for i in range(1, 9)}
    files |= {
        f"{order} of type {kind}": start + segment(0xE1, exif(6, order, kind)) + rest
        for order in "<>" for kind in (1, 3, 4, 8, 9)
    }  # fmt: skip
    return files | {
        "RGB stored": saved("RGB", "JPEG", keep_rgb=True),
        "restart markers": saved("RGB", "JPEG", restart_marker_blocks=2),
        "YCCK": cmyk[: adobe + 15] + b"\2" + cmyk[adobe + 16 :],
        "CMYK of nobody": cmyk[:adobe] + cmyk[adobe + 16 :],
        "late": start + icc + segment(0xFE, b"hi") + app_xmp + segment(0xE1, exif(8)) + rest,
        "behind the frame": plain[:scan] + segment(0xE1, exif(6)) + plain[scan:],
        "far in": start + segment(0xE1, exif(6, before=b"x" * 500)) + rest,
        "padded": start + b"\xff\xff" + segment(0xE1, exif(8)) + b"\xff\xff\xff" + rest,
        "zeros between": start + segment(0xE1, exif(8)) + b"\0\0\0" + rest,
        "in two parts": start + segment(0xE1, long[:60])
        + segment(0xE1, b"Exif\0\0" + long[60:]) + rest,
        "two": start + segment(0xE1, exif(6)) + segment(0xE1, exif(3)) + rest,
        "XMP": start + app_xmp + rest,
        "XMP and EXIF": start + app_xmp + segment(0xE1, exif(3)) + rest,
        "no orientation": start + segment(0xE1, exif(9)) + rest,
        "something behind": plain + b"something",
    }  # fmt: skip


def pngs() -> dict[str, bytes]:
    names = ("1", "L", "LA", "P", "P 16", "P 4", "P 2", "RGB", "RGBA", "I;16")
    files = {name: saved(name, "PNG") for name in names}
    for colours, channels in ((0, 1), (2, 3), (3, 1), (4, 2), (6, 4)):
        for bits in {0: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8)}.get(colours, (8, 16)):
            rows = noise(H, -(-W * channels * bits // 8))[..., 0]
            start = b"\x89PNG\r\n\x1a\n" + chunk(
                b"IHDR", struct.pack(">IIBBBBB", W, H, bits, colours, 0, 0, 0)
            )
            start += chunk(b"PLTE", noise(1, 2**bits).tobytes()) if colours == 3 else b""
            end = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + r.tobytes() for r in rows)))
            end += chunk(b"IEND", b"")
            files[f"colours {colours}, {bits} bits"] = start + end
            if colours < 4:
                none = b"\0\x80" if colours == 3 else b"\0\1" * channels
                files[f"colours {colours}, {bits} bits, tRNS"] = start + chunk(b"tRNS", none) + end
    plain = saved("RGB", "PNG")
    raw = exif(6)
    profile = b"\nexif\n%8d\n" % len(raw) + raw.hex().encode() + b"\n"
    chunks = {
        "EXIF": chunk(b"eXIf", raw[6:]),
        "EXIF with a prefix": chunk(b"eXIf", raw),
        "many before": chunk(b"tEXt", b"a\0b" * 9999) + chunk(b"gAMA", b"\0\0\xb1\x8f")
        + chunk(b"eXIf", exif(6, "<", 4)[6:]),
        "ImageMagick's": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),
        "ImageMagick's text": chunk(b"tEXt", b"Raw profile type exif\0" + profile),
        "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6)),
        "XMP packed": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp(6))),
        "gamma": chunk(b"gAMA", b"\0\1\x86\xa0"), "bits": chunk(b"sBIT", b"\5\5\5"),
    }  # fmt: skip
    files |= {name: plain[:33] + part + plain[33:] for name, part in chunks.items()}
    files["EXIF at the end"] = plain[:-12] + chunks["EXIF"] + plain[-12:]
    files |= {f"turned {i}": turned("PNG", i) for i in range(1, 9)}
    later = [modes()["RGB"].rotate(angle) for angle in (180, 90)]
    for alone in (False, True):
        files[f"animated, {alone}"] = saved(
            "RGB", "PNG", save_all=True, default_image=alone, append_images=later
        )
    return files


def gifs() -> dict[str, bytes]:
    plain = saved("P", "GIF")
    end = 13 + 3 * (2 << (plain[10] & 7))
    at = plain.index(b"\x2c\0\0\0\0", end)
    small = bytearray(plain)
    small[6:10], small[at + 1 : at + 5] = struct.pack("<HH", 60, 50), struct.pack("<HH", 4, 6)
    small[11] = 7  # the colour of the background
    own = bytes([0x80 | plain[10] & 7]) + plain[13:end]
    clear = b"\x21\xf9\x04\1\0\0\5\0"
    return {
        "P": plain, "L": saved("L", "GIF"), "RGBA": saved("RGBA", "GIF"),
        "87": b"GIF87a" + plain[6:],
        "interlaced": saved("P", "GIF", interlace=True),
        "transparent": saved("P", "GIF", transparency=3, comment=b"hello" * 20),
        "said twice": b"GIF89a" + plain[6:end] + clear * 2 + plain[end:],
        "animated": saved("RGBA", "GIF", save_all=True, append_images=[modes()["RGB"]], disposal=2),
        "smaller": bytes(small),
        "smaller and transparent": b"GIF89a" + bytes(small[6:end]) + clear + bytes(small[end:]),
        "a palette of its own": plain[:10] + bytes([plain[10] & 0x7F]) + plain[11:13]
        + plain[end : at + 9] + own + plain[at + 10 :],
    }  # fmt: skip


def bmps() -> dict[str, bytes]:
    names = ("1", "L", "P", "P 16", "RGB", "RGBA")
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    other = struct.pack("<IIII", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    rgb, rgba = smooth(3).reshape(H, -1), smooth(4).reshape(H, -1)
    return {name: saved(name, "BMP") for name in names} | {
        "OS/2": bmp(rgb, 24, 12),
        "OS/2 palette": bmp(rgb[:, :W], 8, 12, rest=noise(1, 256).tobytes()),
        "24": bmp(rgb, 24, 40), "32": bmp(rgba, 32, 40),
        "V4": bmp(rgba, 32, 108, rest=masks + bytes(52), packing=3),
        "V5": bmp(rgba, 32, 124, rest=other + bytes(68), packing=3),
    }  # fmt: skip


def webps() -> dict[str, bytes]:
    from PIL import Image

    files = {name: saved(name, "WEBP") for name in ("L", "P", "RGB", "LA", "RGBA")}
    for name in ("RGB", "RGBA"):
        files[f"{name} lossless"] = saved(name, "WEBP", lossless=True, exact=True)
        turn = modes()[name].transpose(Image.Transpose.ROTATE_180)
        files[f"{name} animated"] = saved(name, "WEBP", save_all=True, append_images=[turn])
        files[f"{name} LONG"] = saved(name, "WEBP", exif=exif(6, "<", 4))
        files[f"{name} XMP"] = saved(name, "WEBP", xmp=xmp(6), icc_profile=b"x" * 3000)
    return files | {f"turned {i}": turned("WEBP", i) for i in range(1, 9)}


def tiffs() -> dict[str, bytes]:
    size, rgb, rgba = (H, W), smooth(3), smooth(4)
    deep = np.random.default_rng(0).integers(0, 65536, (H, W, 4), dtype=np.uint16)
    names = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "RGB")
    files = {
        f"{name} {packed}": saved(name, "TIFF", compression=packed)
        for name in names for packed in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
    }  # fmt: skip
    files |= {f"{name} JPEG": saved(name, "TIFF", compression="jpeg") for name in ("L", "RGB")}
    files["fax"] = saved("1", "TIFF", compression="group4")
    files["pages"] = saved(
        "RGB", "TIFF", save_all=True, append_images=[modes()["L"].resize((9, 9))]
    )
    for order in "<>":
        files[f"{order} behind"] = tiff([rgb.tobytes()], size, order=order)
        files[f"{order} before"] = tiff([rgb.tobytes()], size, order=order, first=True)
        for channels, colours in ((1, 1), (3, 2), (4, 2)):
            part = deep[..., :channels].astype(order + "u2").tobytes()
            more = [(338, 3, (2,))] if channels == 4 else []
            bits = (16,) * channels
            files[f"{order} 16 bits, {channels}"] = tiff(
                [part], size, bits, colours, order=order, more=more
            )
        for i in range(1, 9):
            for kind in (3, 4):
                files[f"{order} turned {i}, type {kind}"] = tiff(
                    [rgb.tobytes()], size, order=order, more=[(274, kind, (i,))]
                )
    files["big"] = tiff([rgb.tobytes()], size, big=True)
    for extra in (0, 1, 2):
        more = [(338, 3, (extra,))]
        files[f"alpha {extra}"] = tiff([rgba.tobytes()], size, (8,) * 4, more=more)
    planes = [np.ascontiguousarray(rgba[..., i]).tobytes() for i in range(4)]
    files["planes"] = tiff(planes[:3], size, more=[(284, 3, (2,))])
    files["planes and alpha"] = tiff(planes, size, (8,) * 4, more=[(284, 3, (2,)), (338, 3, (2,))])
    files["white is 0"] = tiff(planes[:1], size, (8,), 0)
    palette = tuple(np.random.default_rng(1).integers(0, 65536, 768).tolist())
    files["palette"] = tiff(planes[:1], size, (8,), 3, more=[(320, 3, palette)])
    half = noise(H, -(-W // 2))[..., 0].tobytes()
    files["palette of 16"] = tiff([half], size, (4,), 3, more=[(320, 3, palette[:48])])
    files["private"] = tiff([rgb.tobytes()], size, first=True, more=[(65000, 1, b"x" * 70_000)])
    files["XMP"] = tiff([rgb.tobytes()], size, more=[(700, 1, xmp(6))])
    return files


def avifs() -> dict[str, bytes]:
    files = {}
    for name in ("L", "P", "RGB", "LA", "RGBA"):
        for sampling in ("4:4:4", "4:2:2", "4:2:0", "4:0:0")[: 3 if "A" in name else 4]:
            files[f"{name} {sampling}"] = saved(name, "AVIF", subsampling=sampling)
        files[f"{name} limited"] = saved(name, "AVIF", range="limited")
    for depth in (10, 12):
        for channels in (1, 3, 4):
            deep = (smooth(channels) / 255 * (2**depth - 1)).round().astype(np.uint16)
            options = [cv2.IMWRITE_AVIF_DEPTH, depth, cv2.IMWRITE_AVIF_QUALITY, 90]
            files[f"{depth} bits, {channels}"] = cv2.imencode(".avif", deep, options)[1].tobytes()
    files["animated"] = saved(
        "RGB", "AVIF", save_all=True, append_images=[modes()["RGB"].rotate(180)]
    )
    files["XMP"] = saved("RGB", "AVIF", xmp=xmp(6))
    return files | {f"turned {i}": turned("AVIF", i) for i in range(1, 9)}


def jp2s() -> dict[str, bytes]:
    plain = saved("RGB", "JPEG2000")
    at = 12 + struct.unpack(">I", plain[12:16])[0]
    box = struct.pack(">I", 48) + b"uuid" + b"0" * 16 + b"ihdr" + b"\xff" * 20
    files = {name: saved(name, "JPEG2000") for name in ("L", "LA", "RGB", "RGBA", "I;16")}
    lossy = saved("RGB", "JPEG2000", irreversible=True, quality_layers=[20])
    middle = cv2.resize(smooth(3) // 2 + 64, (96, 80)).astype(np.uint16) * 257  # Pillow's run over
    deep = cv2.imencode(".jp2", middle)[1].tobytes()
    return files | {"lossy": lossy, "16 bits": deep, "a box before": plain[:at] + box + plain[at:]}


def netpbms() -> dict[str, bytes]:
    files = {name: saved(name, "PPM") for name in ("1", "L", "RGB", "I;16")}
    for white in (1, 15, 100, 255, 256, 1000, 4095, 65535):
        values = np.random.default_rng(0).integers(0, white + 1, (H, W, 3))
        digits, raw = (
            " ".join(map(str, values.ravel())),
            values.astype(np.uint8 if white < 256 else ">u2"),
        )
        start = b"%d # a comment: 99999 99999\n%d\n# another\n%d\n" % (W, H, white)
        files[f"P3 to {white}"] = b"P3\n" + start + digits.encode() + b"\n"
        files[f"P6 to {white}"] = b"P6 " + start + raw.tobytes()
        files[f"P5 to {white}"] = b"P5\n#\n" + start + raw[..., 0].tobytes()
    return files


# The furthest from Pillow, in grey levels.
KINDS = {
    jpegs: 2, pngs: 1, gifs: 0, bmps: 0, webps: 0, tiffs: 1, avifs: 1, jp2s: 1, netpbms: 1,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what is odd in a file
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_pixels_are_pillows(kind, capfd):
    pytest.importorskip("PIL")
    wrong, shallow = {}, ("16 bits", "I;16", "16 ", "P3", "P5", "P6", "colours", "CMYK", "YCbCr")
    files = kind()
    assert len(files) >= 6
    for name, data in files.items():
        expected = pillow(data)
        header = read_header(data)
        assert header is not None, name
        found = decode(data, name)
        picture = Picture(data, name)
        whole = picture.part(Box(0, 0, picture.height, picture.width))
        np.testing.assert_array_equal(whole, found, err_msg=name)
        if found.shape != expected.shape:
            wrong[name] = found.shape, expected.shape
            continue
        allowed = KINDS[kind]
        if kind in (pngs, tiffs, jp2s) and not any(word in name for word in shallow):
            allowed = 0
        if (worst := np.abs(found - expected).max()) > allowed:
            wrong[name] = worst
    assert not wrong
    assert "Error" not in capfd.readouterr().err


def test_big_tiff_of_either_order_which_pillow_does_not_read():
    pixels, turn = smooth(3), [(274, 3, (6,))]
    for order in "<>":
        data = tiff([pixels.tobytes()], (H, W), order=order, big=True, more=turn)
        np.testing.assert_array_equal(decode(data), np.rot90(pixels, -1))


def refused() -> dict[str, tuple[bytes, str]]:
    """Files that OpenCV shows otherwise than Pillow, or neither shows."""
    size, gray = (H, W), smooth(1)
    deep = noise(H, 2 * W)[..., 0].tobytes()
    plain = saved("P", "GIF")
    end = 13 + 3 * (2 << (plain[10] & 7))
    beyond = plain[:6] + struct.pack("<HH", 20, 10) + plain[10:]
    packed = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    ten = struct.pack("<III", 0x3FF00000, 0xFFC00, 0x3FF)
    old = tuple(range(256)) * 3
    return {
        "float": (saved("F", "TIFF"), "signed or of floating point"),
        "32 bits": (saved("I", "TIFF"), "signed or of floating point"),
        "Lab": (saved("LAB", "TIFF"), "TIFF's kind 8"),
        "white is 0": (tiff([deep], size, (16,), 0), "16 bits a sample in TIFF's colours 0"),
        "12 bits": (tiff([deep], size, (12,), 1), "12 bits a sample"),
        "2 bits": (tiff([deep], size, (2,), 1), "2 bits a sample"),
        "signed": (tiff([deep], size, (16,), 1, more=[(339, 3, (2,))]), "signed"),
        "planes": (
            tiff([deep] * 3, size, (16,) * 3, more=[(284, 3, (2,))]),
            "3 channels of 16 bits, in planes",
        ),
        "five": (tiff([gray.tobytes() * 5], size, (8,) * 5), "5 channels of 8 bits"),
        "gray and alpha": (
            tiff([deep], size, (8, 8), 1, more=[(338, 3, (1,))]), "multiplied by an alpha channel"
        ),
        "palette": (
            tiff([gray.tobytes()], size, (8,), 3, more=[(320, 3, old)]), "its palette has 8 bits"
        ),
        "565": (bmp(noise(H, 2 * W)[..., 0], 16, 40, rest=packed, packing=3), "16 bits a pixel"),
        "ten": (bmp(noise(H, 4 * W)[..., 0], 32, 40, rest=ten, packing=3), "colours are no bytes"),
        "beyond": (beyond, r"first frame has 53×37 pixels at \(0, 0\), and the whole has 20×10"),
        "no palette": (
            plain[:10] + bytes([plain[10] & 0x7F]) + plain[11:13] + plain[end:], "has no palette"
        ),
        "sYCC": (saved("YCbCr", "JPEG2000"), "JPEG 2000's kind 18"),
        "codestream": (saved("RGB", "JPEG2000", no_jp2=True), "in no format that is read .JPEG, "),
        "gray AVIF with alpha": (saved("RGBA", "AVIF", subsampling="4:0:0"), "OpenCV reads"),
    }  # fmt: skip


def test_what_cannot_be_compared_is_refused_by_name():
    pytest.importorskip("PIL")
    for name, (data, message) in refused().items():
        with pytest.raises(BadImage, match=f"Cannot read image 'cat/{name}'.*{message}"):
            Picture(data, f"cat/{name}")
        with pytest.raises(BadImage, match=message):
            decode(data)


@pytest.mark.parametrize(("bits", "factor"), [(8, 257), (12, 16)])
@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_sixteen_bits_are_divided_by_257_and_small_numbers_are_told_of(
    bits, factor, extension, caplog, monkeypatch
):
    monkeypatch.setattr(codec, "_told_of_shallow", codec.threading.Event())
    small = (smooth(1)[..., 0].astype(np.uint16) * (2**bits - 1) // 255).astype(np.uint16)
    small[0, 0] = 2**bits - 1
    black, whole = np.zeros((4, 4), np.uint16), np.full((4, 4), 40_000, np.uint16)
    with caplog.at_level(logging.WARNING):
        for name, numbers in (("black", black), ("whole", whole)):
            decode(encoded(extension, numbers), name)
        assert not caplog.messages
        found = decode(encoded(extension, small), "a/1.png")
        decode(encoded(extension, small), "a/2.png")
    np.testing.assert_array_equal(found[..., 1], np.rint(small / 257))
    (message,) = caplog.messages
    assert f"'a/1.png' has 16 bits a sample, and none above {2**bits - 1}" in message
    assert f"If its numbers are of {bits} bits, multiply them by {factor}" in message
