"""How much media may cost before it is refused; one frozen object that every decoder is given."""

from __future__ import annotations

from dataclasses import dataclass, fields

from detectors.errors import ConfigError, MediaError, MediaReason

__all__ = ["DEFAULT_LIMITS", "LOCAL_LIMITS", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on encoded and decoded media.

    Attributes:
        max_bytes: of the encoded media.
        min_side: shorter side in pixels. Below 8 there is not one JPEG block to judge, so a 1x1 image is refused as
            ``too_small`` rather than answered with a number that says nothing.
        max_side: longer side in pixels.
        max_aspect: longest side over shortest. Detectors and gates bring the shorter side to their input size: a thread
            8 pixels high and thousands long would grow to gigabytes there. A wide panorama is 10 to 1.
        max_pixels: of one image or frame, read off the header before a pixel is decoded.
        max_frames: of a JPEG frame sequence (SN34 sends 8-129), refused beyond; of a container, never kept beyond.
        container_frames: evenly spaced frames kept of a container when the caller names no number.
        max_video_bytes: of all RGB frames of one video together. JPEG frames beyond it are refused, of a container
            fewer frames are kept.
        max_decoded_frames: decoded of one container; longer clips are read by their key frames.
        formats: Pillow's names of the image formats that are tried. What strangers send is read without TIFF: its
            library writes a line to standard error for every fault that it finds, as many as the sender likes.
        max_seconds: of wall time for one video. What was decoded of a container by then is judged; JPEG frames that
            take longer are refused (a thousand times what honest ones take).

    Raises:
        ConfigError: a bound is not positive, or there is no format.
    """

    max_bytes: int = 32 << 20
    min_side: int = 8
    max_side: int = 16_384
    max_aspect: float = 32.0
    max_pixels: int = 4096 * 4096
    max_frames: int = 144
    container_frames: int = 32
    max_video_bytes: int = 256 << 20
    max_decoded_frames: int = 3_000
    max_seconds: float = 5.0
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not (value if isinstance(value, tuple) else value > 0):
                raise ConfigError(f"limit {f.name} must be positive, not {value!r}")

    def check_bytes(self, count: int) -> None:
        """Raises MediaError for no bytes or too many."""
        if count == 0:
            raise MediaError(MediaReason.EMPTY, "there are no bytes")
        if count > self.max_bytes:
            raise MediaError(MediaReason.TOO_LARGE, f"{count} bytes; at most {self.max_bytes} are read")

    def check_size(self, width: int, height: int) -> None:
        """Raises MediaError for an image or frame that is too small or too large."""
        if min(width, height) < self.min_side:
            raise MediaError(
                MediaReason.TOO_SMALL, f"{width}x{height} pixels; the shorter side must be at least {self.min_side}"
            )
        if max(width, height) > self.max_side or width * height > self.max_pixels:
            raise MediaError(
                MediaReason.TOO_LARGE,
                f"{width}x{height} pixels; at most {self.max_pixels} and {self.max_side} a side are decoded",
            )
        if max(width, height) > self.max_aspect * min(width, height):
            raise MediaError(
                MediaReason.UNSUPPORTED,
                f"{width}x{height} pixels; sides of at most {self.max_aspect:g} to 1 are judged",
            )

    def frames_kept(self, width: int, height: int, wanted: int | None = None) -> int:
        """How many frames of one size a container may leave behind, at least one."""
        affordable = self.max_video_bytes // (width * height * 3)
        return max(1, min(self.container_frames if wanted is None else wanted, self.max_frames, affordable))


DEFAULT_LIMITS = Limits()
"""For what strangers send."""

LOCAL_LIMITS = Limits(
    max_bytes=2 << 30,
    max_side=32_768,
    max_pixels=250_000_000,
    max_video_bytes=1 << 30,
    max_seconds=60.0,
    formats=(*DEFAULT_LIMITS.formats, "TIFF"),
)
"""For a person's own files, e.g. a 200-megapixel photograph or an hour of video."""
