"""Every kind of image that can arrive, right or wrong, and what it must turn into."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, TiffImagePlugin

from detectors import media
from detectors.errors import ConfigError, MediaError, MediaReason
from detectors.limits import DEFAULT_LIMITS, LOCAL_LIMITS, Limits
from detectors.media import decode, decode_image, encode_jpeg
from tests.detectors.fixtures_media import encoded, movie, photo, png_header, video_frames, with_segment

SCENE = photo()


def refused(data: bytes, **limits: Any) -> MediaError:
    with pytest.raises(MediaError) as caught:
        decode_image(data, limits=Limits(**limits))
    return caught.value


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_come_back_bit_for_bit(kind: str, options: dict[str, object]) -> None:
    decoded = decode_image(encoded(SCENE, kind, **options), limits=LOCAL_LIMITS)
    np.testing.assert_array_equal(decoded.pixels, SCENE)
    assert (decoded.modality, decoded.origin, decoded.size) == ("image", kind, (48, 64))
    assert decoded.pixels.flags.writeable
    assert decoded.pixels.flags.c_contiguous


@pytest.mark.parametrize("options", [{"quality": 95}, {"quality": 90, "progressive": True}])
def test_jpeg_is_read_as_libjpeg_reads_it(options: dict[str, object]) -> None:
    data = encoded(SCENE, "JPEG", **options)
    reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decode_image(data).pixels, reference)


def test_encode_jpeg_is_the_validators_setting() -> None:
    assert encode_jpeg(SCENE) == encoded(SCENE, "JPEG")  # Pillow's defaults are quality 75, 4:2:0
    assert len(encode_jpeg(SCENE, quality=95)) > len(encode_jpeg(SCENE))


def test_grey_one_bit_and_palette() -> None:
    grey = SCENE[..., 0]
    np.testing.assert_array_equal(decode_image(encoded(grey, "PNG")).pixels, np.repeat(grey[..., None], 3, axis=2))
    bits = Image.fromarray(grey > 128)
    assert set(np.unique(decode_image(encoded(bits, "PNG")).pixels)) == {0, 255}
    palette = Image.fromarray(SCENE).quantize(32)
    for kind in ("PNG", "GIF"):
        np.testing.assert_array_equal(decode_image(encoded(palette, kind)).pixels, np.asarray(palette.convert("RGB")))


def test_transparency_is_composited_on_white() -> None:
    alpha = np.full((48, 64, 1), 255, np.uint8)
    alpha[:24] = 0
    alpha[24:36] = 128
    pixels = decode_image(encoded(np.concatenate([SCENE, alpha], axis=2), "PNG")).pixels
    assert (pixels[:24] == 255).all()
    half = (SCENE[24:36].astype(int) * 128 + 255 * 127) / 255
    assert np.abs(pixels[24:36] - half).max() <= 1
    np.testing.assert_array_equal(pixels[36:], SCENE[36:])


def test_palette_with_a_transparent_colour() -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (8, 0, 16, 16))
    pixels = decode_image(encoded(image, "PNG", transparency=0)).pixels
    assert (pixels[:, :8] == 255).all()
    assert (pixels[:, 8:] == (0, 0, 255)).all()


def test_sixteen_bit_grey_is_scaled_and_rounded() -> None:
    values = np.linspace(0, 65535, 64 * 16).astype(np.uint16).reshape(16, 64)
    expected = np.rint(values / 257.0).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        pixels = decode_image(encoded(Image.fromarray(values), kind), limits=LOCAL_LIMITS).pixels
        np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))


def test_sixteen_bit_colour_is_within_one_level() -> None:
    values = np.random.default_rng(1).integers(0, 65536, (16, 24, 3)).astype(np.uint16)
    ok, data = cv2.imencode(".png", values[..., ::-1])
    assert ok
    assert np.abs(decode_image(data.tobytes()).pixels - values / 257.0).max() <= 1.0


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_samples_without_a_white_are_refused(dtype: type) -> None:
    image = Image.fromarray(np.ones((16, 16), dtype))
    with pytest.raises(MediaError) as caught:
        decode_image(encoded(image, "TIFF"), limits=LOCAL_LIMITS)
    assert caught.value.reason is MediaReason.UNSUPPORTED


def test_a_strangers_tiff_is_not_even_tried(capfd: pytest.CaptureFixture[str]) -> None:
    broken = bytearray(encoded(SCENE, "TIFF", compression="tiff_lzw"))
    broken[40:400] = bytes(360)
    error = refused(bytes(broken))
    assert error.reason is MediaReason.UNDECODABLE
    assert "TIFF" not in str(error)
    assert capfd.readouterr().err == ""  # libtiff would complain there, a line a fault


def test_cmyk_is_read_with_adobes_inversion() -> None:
    cmyk = Image.fromarray(SCENE).convert("CMYK")
    data = encoded(cmyk, "JPEG", quality=95)
    assert b"Adobe" in data
    pixels = decode_image(data).pixels.astype(int)
    assert np.abs(pixels - np.asarray(cmyk.convert("RGB"))).mean() < 5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_shows_the_scene_upright(orientation: int, kind: str) -> None:
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32, 0] = upright[:16, 32:, 1] = upright[16:, :32, 2] = 200  # red, green / blue, black
    undo = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode_image(encoded(np.ascontiguousarray(undo), kind, exif=exif, quality=100)).pixels
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright)[4:12, 4:28].max() < 12
    assert np.abs(pixels.astype(int) - upright)[20:28, 36:60].max() < 12


def test_damaged_metadata_does_not_lose_the_picture() -> None:
    data = encode_jpeg(SCENE)
    rotten = with_segment(data, 0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff" * 3)
    with warnings.catch_warnings(record=True) as heard:
        np.testing.assert_array_equal(decode_image(rotten).pixels, decode_image(data).pixels)
    assert not heard


def test_an_icc_profile_does_not_change_the_pixels() -> None:
    from PIL import ImageCms  # noqa: PLC0415 - only here

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    data = encoded(SCENE, "JPEG")
    np.testing.assert_array_equal(
        decode_image(encoded(SCENE, "JPEG", icc_profile=profile)).pixels, decode_image(data).pixels
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_images_are_refused(kind: str, share: float) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = encoded(noisy, kind)
    with pytest.raises(MediaError) as caught:
        decode_image(data[: int(len(data) * share)], limits=LOCAL_LIMITS)
    error = caught.value
    # Pillow writes a TIFF's directory last, so that a short one has none at all
    expected = {MediaReason.TRUNCATED} if kind != "TIFF" else {MediaReason.TRUNCATED, MediaReason.UNDECODABLE}
    assert error.reason in expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", MediaReason.EMPTY),
        (b"\x00", MediaReason.UNDECODABLE),
        (b"not an image at all", MediaReason.UNDECODABLE),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", MediaReason.UNDECODABLE),
        (b"P6 64 64 255\n" + bytes(64 * 64 * 3), MediaReason.UNDECODABLE),  # a format off the list
        (b"\xff\xd8\xff", MediaReason.TRUNCATED),
        (b"\xff\xd8\xff\xd9", MediaReason.UNDECODABLE),
    ],
)
def test_what_is_no_image_says_so(data: bytes, reason: MediaReason) -> None:
    assert refused(data).reason is reason


def test_an_image_of_one_pixel_is_too_small() -> None:
    error = refused(encoded(np.zeros((1, 1, 3), np.uint8), "PNG"))
    assert error.reason is MediaReason.TOO_SMALL
    assert "1x1" in error.detail
    assert decode_image(encoded(np.zeros((8, 8, 3), np.uint8), "PNG")).size == (8, 8)


@pytest.mark.parametrize("side", [20_000, 2_000_000_000])
def test_a_huge_header_is_refused_before_a_pixel_is_decoded(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: object) -> None:
        pytest.fail("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(pytest.fail.Exception):
        decode_image(encoded(SCENE, "BMP"))
    assert refused(png_header(side, side)).reason is MediaReason.TOO_LARGE
    header = encoded(SCENE, "JPEG")
    at = header.index(b"\xff\xc0") + 5
    huge = header[:at] + (20_000).to_bytes(2, "big") * 2 + header[at + 4 :]
    assert refused(huge).reason is MediaReason.TOO_LARGE


@pytest.mark.parametrize("shape", [(8, 257, 3), (257, 8, 3)])
def test_a_thread_of_pixels_is_refused(shape: tuple[int, int, int]) -> None:
    error = refused(encoded(np.zeros(shape, np.uint8), "PNG"))
    assert error.reason is MediaReason.UNSUPPORTED
    assert "32 to 1" in error.detail
    assert decode_image(encoded(np.zeros((8, 256, 3), np.uint8), "PNG")).size == (8, 256)


def test_limits_on_bytes_sides_and_values() -> None:
    data = encoded(SCENE, "PNG")
    assert refused(data, max_bytes=len(data) - 1).reason is MediaReason.TOO_LARGE
    assert refused(data, max_side=63).reason is MediaReason.TOO_LARGE
    assert refused(data, max_pixels=48 * 64 - 1).reason is MediaReason.TOO_LARGE
    assert decode_image(data, limits=Limits(max_bytes=len(data), max_side=64, max_pixels=48 * 64)).size == (48, 64)
    with pytest.raises(ConfigError, match="min_side"):
        Limits(min_side=0)


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded() -> None:
    data = encoded(SCENE, "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    endless = data[:scan] + data[scan:-2] * 400 + b"\xff\xd9"
    error = refused(endless)
    assert error.reason is MediaReason.UNSUPPORTED
    assert "scans" in error.detail


def test_decode_tells_stills_from_animations(tmp_path: Path) -> None:
    frames = [Image.fromarray(f) for f in video_frames(6, 16, 16)]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"save_all": True, "append_images": frames[1:], "duration": 40, "lossless": True}
        animated = encoded(frames[0], kind, **options)
        still = encoded(frames[0], kind)
        assert decode(still).pixels.shape == (16, 16, 3)
        video = decode(animated)
        assert video.modality == "video"
        levels = video.pixels[:, 8, 8, 0].astype(int)
        assert np.abs(levels - np.linspace(10, 210, 6)).max() <= 1
        assert video.rate == pytest.approx(25)
        assert decode_image(animated).pixels.shape == (16, 16, 3)
        assert len(decode(animated, max_frames=2).pixels) == 2
        assert len(decode(animated, limits=Limits(max_seconds=1e-9)).pixels) == 1
    clip = tmp_path / "clip.bin"
    clip.write_bytes(movie(video_frames(5)))
    assert decode(clip).pixels.shape == (5, 48, 64, 3)
    clip.write_bytes(encoded(SCENE, "JPEG"))
    assert decode(clip).origin == "JPEG"


def test_a_phones_multi_picture_jpeg_is_one_image() -> None:
    extra = Image.fromarray(photo(seed=1))
    data = encoded(Image.fromarray(SCENE), "MPO", save_all=True, append_images=[extra])
    assert decode(data).pixels.shape == (48, 64, 3)


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"hello", b"RIFF\x04\0\0\0WAVE", b"<svg/>", b"#EXTM3U\nhttp://x/"])
def test_decode_refuses_what_is_no_media(data: bytes) -> None:
    with pytest.raises(MediaError) as caught:
        decode(data)
    assert caught.value.reason is (MediaReason.UNDECODABLE if data else MediaReason.EMPTY)


def test_unreadable_paths_are_media_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(MediaError, match="cannot be read"):
            decode(path)
    (tmp_path / "big.png").write_bytes(encoded(SCENE, "PNG"))
    with pytest.raises(MediaError) as caught:
        decode(tmp_path / "big.png", limits=Limits(max_bytes=100))
    assert caught.value.reason is MediaReason.TOO_LARGE


def _samples() -> list[bytes]:
    small = photo(16, 24)
    exif = Image.Exif()
    exif[0x0112] = 6
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = "scene"
    frames = [Image.fromarray(f) for f in video_frames(3, 16, 16)]
    animated = {"save_all": True, "append_images": frames[1:]}
    return [
        encoded(small, "JPEG", exif=exif),
        encoded(small, "JPEG", progressive=True),
        encoded(Image.fromarray(small).convert("CMYK"), "JPEG"),
        encoded(small, "PNG", exif=exif),
        encoded(Image.fromarray(small).quantize(8), "PNG", transparency=0),
        encoded(small, "WEBP"),
        encoded(small, "BMP"),
        encoded(small, "TIFF", tiffinfo=tags, compression="tiff_lzw"),
        *(encoded(frames[0], kind, **animated) for kind in ("GIF", "WEBP", "PNG")),
        movie(video_frames(3, 16, 16)),
        movie(video_frames(3, 16, 16), container="matroska"),
    ]


SAMPLES = _samples()


@given(st.binary(max_size=300))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    for head in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"BM", b"\0\0\0\x18ftypmp42"):
        with pytest.raises(MediaError):
            decode(head + data, limits=replace(LOCAL_LIMITS, max_pixels=10_000))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(SAMPLES) - 1), st.data())
def test_mutated_media_never_raises_anything_else(which: int, draw: st.DataObject) -> None:
    data = bytearray(SAMPLES[which])
    for at, value in draw.draw(
        st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), min_size=1, max_size=8)
    ):
        data[at] = value
    cut = draw.draw(st.one_of(st.just(len(data)), st.integers(1, len(data))))
    limits = replace(LOCAL_LIMITS, max_pixels=100_000, max_seconds=1.0)
    try:
        assert min(decode(bytes(data[:cut]), limits=limits).size) >= limits.min_side
    except MediaError as error:
        assert error.reason in MediaReason  # noqa: PT017 - either outcome is right


def test_the_public_names() -> None:
    assert media.__all__ == sorted(media.__all__)
    assert all(hasattr(media, name) for name in media.__all__)
    assert DEFAULT_LIMITS.max_frames == 144
