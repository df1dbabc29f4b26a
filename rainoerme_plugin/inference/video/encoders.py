"""How videos are encoded: in the codec of the source where FFmpeg can, so well that no loss is seen."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2

from ...errors import OptionError

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.format import VideoFormat

Tags = tuple[int, int, int, int]
"""Range, primaries, transfer and matrix, FFmpeg's numbers."""
_QSCALE = 118
"""FFmpeg's units of quality in one step of a quantiser scale (FF_QP2LAMBDA)."""
_AVX512 = 13
"""OpenCV's number of AVX-512 (CPU_AVX_512F)."""


class _Way(NamedTuple):
    """An encoder with what it is told."""

    name: str
    options: dict[str, str] = {}  # noqa: RUF012 - a constant
    quality: int | None = None
    """The default, visually lossless; None: it takes none."""
    worst: int = 51
    scale: bool = False
    """Quality is a quantiser scale from 1, not a CRF from 0."""


_H264 = _Way("libx264", {"preset": "medium"}, 16)
_WAYS = {
    "h264": _H264,
    "hevc": _Way("libx265", {"preset": "fast", "x265-params": "log-level=error"}, 18),
    "vp8": _Way("libvpx", {"b": "100M", "deadline": "good", "cpu-used": "4", "lag-in-frames": "16"}, 6, 63),
    "vp9": _Way("libvpx-vp9", {"b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}, 18, 63),
    "av1": _Way("libsvtav1", {"preset": "8"}, 20, 63),
    "mpeg4": _Way("mpeg4", {}, 2, 31, True),
    "mpeg2video": _Way("mpeg2video", {}, 2, 31, True),
    "mjpeg": _Way("mjpeg", {}, 2, 31, True),
    "prores": _Way("prores_ks"),
    "dnxhd": _Way("dnxhd"),
    "ffv1": _Way("ffv1", {"level": "3", "slicecrc": "1"}),
    **{name: _Way(name) for name in ("huffyuv", "ffvhuff", "utvideo", "png", "qtrle", "rawvideo")},
}
"""By the codec of the source; the others become H.264, or VP9 in WebM."""
_PRORES = {"Proxy": "proxy", "LT": "lt", "Standard": "standard", "HQ": "hq", "4444": "4444", "4444 XQ": "4444xq"}


@dataclass(frozen=True)
class Encoder:
    """An encoder, and what it is told."""

    name: str
    pixel_format: str
    rate: Fraction
    """Frames a second as the encoder plans with; the frames' own times are put in afterwards."""
    tags: Tags
    """The source's; others where it is RGB and the encoder takes none."""
    options: dict[str, str] = field(default_factory=dict)
    scale: int | None = None

    def apply(self, context: VideoCodecContext) -> None:
        """Tell the codec's context all but size and rate."""
        context.options = dict(self.options)
        context.thread_type = "AUTO"
        if self.scale is not None:
            context.qscale = True
            context.global_quality = self.scale * _QSCALE
        if self.name == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # errors only: it writes to standard error by itself


def encoder_for(
    codec: str, profile: str | None, pixel_format: str, rate: Fraction, tags: Tags, suffix: str, quality: int | None
) -> Encoder:
    """The encoder for a video like the source.

    Args:
        codec: FFmpeg's name of the source's codec, such as ``h264``.
        profile: Of the source, as PyAV names it.
        pixel_format: Of the source's frames.
        rate: Average frames a second.
        tags: Of the source's colours.
        suffix: The target's, which decides on the container.
        quality: A CRF, or for codecs of the MPEG-2 generation a quantiser scale; None: visually lossless.

    Raises:
        OptionError: The quality is outside of the codec's range.
    """
    import av

    way = _WAYS.get(codec, _WAYS["vp9"] if suffix == ".webm" else _H264)
    made = av.Codec(way.name, "w")
    options = dict(way.options)
    wanted = way.quality if quality is None else quality
    if wanted is not None and way.quality is not None and not int(way.scale) <= wanted <= way.worst:
        raise OptionError(f"quality {wanted}: expected {int(way.scale)} (best) to {way.worst} for {way.name}")
    scale = wanted if way.scale else None
    if way.quality is not None and not way.scale:
        options["crf"] = str(wanted)
    if way.name == "prores_ks":
        options["profile"] = _PRORES.get(profile or "", "hq")
    if suffix == ".avi":
        options["bf"] = "0"  # AVI keeps one time of a frame, that of decoding
    if way.name == "libx264" and cv2.checkHardwareSupport(_AVX512):
        # x264's code for AVX-512 reads what nobody has written: a part that is made again would not be the same.
        options["x264-params"] = "asm=AVX2"
    wanted_format = av.VideoFormat(pixel_format)
    if wanted_format.has_palette or (wanted_format.is_rgb and _traits(wanted_format)[0] < 8):
        # Whose few colours a network does not keep to.
        wanted_format = av.VideoFormat("bgr24" if suffix == ".avi" else "rgb24")
    chosen = _nearest(wanted_format, made.video_formats or [])
    if tags[3] == 0 and not av.VideoFormat(chosen).is_rgb:
        tags = (1, *tags[1:3], 1)  # it was RGB, and no longer is
    return Encoder(way.name, chosen, _rate(made, rate), tags, options, scale)


def _nearest(wanted: VideoFormat, offered: list[VideoFormat]) -> str:
    """The pixel format that loses nothing of the wanted one, or least, and has no more than need be."""

    def loss(other: VideoFormat) -> tuple[Any, ...]:
        bits, chroma, rgb = _traits(wanted)
        other_bits, other_chroma, other_rgb = _traits(other)
        return (
            other.name != wanted.name,
            max(0, chroma - other_chroma),
            max(0, bits - other_bits),
            rgb != other_rgb,
            any(component.is_alpha for component in other.components),
            wanted.name.startswith("yuvj") != other.name.startswith("yuvj"),
            other_chroma - chroma,
            other_bits - bits,
            other.name,
        )

    usable = [item for item in offered if item.components and not item.has_palette and not item.is_bayer]
    return min(usable, key=loss).name if usable else wanted.name


def _traits(item: VideoFormat) -> tuple[int, int, bool]:
    """Bits a channel, samples of chroma for 256 pixels, and whether it is RGB."""
    bits = max(component.bits for component in item.components)
    if item.is_rgb or item.has_palette:
        return bits, 256, True
    grey = len([component for component in item.components if not component.is_alpha]) < 3
    return bits, 0 if grey else item.chroma_width(16) * item.chroma_height(16), False


def _rate(codec: Any, rate: Fraction) -> Fraction:
    """The nearest rate that the encoder takes."""
    if codec.frame_rates:
        offered = [Fraction(each.numerator, each.denominator) for each in codec.frame_rates]
        return min(offered, key=lambda each: abs(each - rate))
    # MPEG-4 counts a second in 16 bits.
    return rate if max(rate.numerator, rate.denominator) < 65536 else rate.limit_denominator(1001)
