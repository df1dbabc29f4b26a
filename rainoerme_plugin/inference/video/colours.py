"""Frames of videos to RGB and back, by the video's own matrix and range: what is not changed comes back the same.

swscale only resamples the chroma. Its own way to RGB and back loses half a level of chroma each time where YUV has all
levels, and its RGB of 16 bits has a white of 65280 or 65472.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter
from numpy.typing import NDArray

from ...data.images import Pixels

if TYPE_CHECKING:
    from av.video.format import VideoFormat
    from av.video.frame import VideoFrame

SD_LINES = 720
"""Untagged videos of fewer lines have BT.601's matrix, others BT.709's: what players assume."""
_ITU709, _FCC, _ITU601, _SMPTE240M, _BT2020 = 1, 4, 5, 7, 9
"""Matrices as swscale numbers them; older versions of PyAV have no names for some, nor for all of `_HOW`."""
_MATRICES = {1: _ITU709, 4: _FCC, 5: _ITU601, 6: _ITU601, 7: _SMPTE240M, 9: _BT2020, 10: _BT2020}
"""swscale's numbers for those of the streams' tags (ITU-T H.273, table 4)."""
_LUMA = {
    _ITU709: (0.2126, 0.0722),
    _FCC: (0.30, 0.11),
    _ITU601: (0.299, 0.114),
    _SMPTE240M: (0.212, 0.087),
    _BT2020: (0.2627, 0.0593),
}
"""What red and blue have of the luma (ITU-T H.273, table 4)."""
_HOW = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000
"""swscale's BICUBIC, FULL_CHR_H_INT, FULL_CHR_H_INP, ACCURATE_RND and BITEXACT: without the last, its fast ways are off
by levels, and wrong altogether for 10 bits."""


class Colours:
    """The way of one video's frames to RGB and back; one for each thread.

    Args:
        pixel_format: Of the video's frames, FFmpeg's name.
        height: Of its frames, as they are stored.
        tagged_range: Whether YUV has all levels, as the video says.
        tagged_matrix: Of YUV, as the video says.
    """

    def __init__(self, pixel_format: str, height: int, tagged_range: int, tagged_matrix: int) -> None:
        own = av.VideoFormat(pixel_format)
        self._matrix = _MATRICES.get(tagged_matrix, _ITU601 if height < SD_LINES else _ITU709)
        full = tagged_range == ColorRange.JPEG or pixel_format.startswith("yuvj")
        self._range = ColorRange.JPEG if full else ColorRange.MPEG
        depth = bits(own)
        self.dtype = np.dtype(np.uint8 if depth <= 8 else np.uint16)
        self._rgb, self._yuv = ("rgb24", "yuv444p") if depth <= 8 else ("rgb48le", "yuv444p16le")
        self._by_hand = not own.is_rgb and not own.has_palette and len(own.components) > 2
        self._to_rgb = _to_rgb(self._matrix, full, depth)
        self._to_yuv = np.asarray(np.linalg.inv(self._to_rgb), np.float64)
        self._reformatter = VideoReformatter()

    def rgb(self, frame: VideoFrame) -> Pixels:
        """(H, W, 3) uint8 or uint16 RGB."""
        if not self._by_hand:
            return self._reformat(frame, self._rgb).to_ndarray()  # type: ignore[return-value]
        yuv: Any = self._reformat(frame, self._yuv).to_ndarray(channel_last=True)
        return _transformed(yuv, self._to_rgb)

    def frame(self, rgb: Pixels, pixel_format: str) -> VideoFrame:
        """A frame of that format."""
        image: Any = np.ascontiguousarray(rgb)
        if not self._by_hand:
            return self._reformat(av.VideoFrame.from_ndarray(image, format=self._rgb), pixel_format)
        yuv = _transformed(image, self._to_yuv)
        wanted = av.VideoFormat(pixel_format)
        if self.dtype == np.uint16 and (wanted.chroma_width(2), wanted.chroma_height(2)) == (2, 2):
            # swscale rounds what it resamples, and dithers the rest.
            step = 1 << (16 - bits(wanted))
            yuv = np.minimum(yuv, 65535 - step // 2)
            yuv = (yuv + step // 2) // step * step
        return self._reformat(av.VideoFrame.from_ndarray(yuv, format=self._yuv, channel_last=True), pixel_format)

    def _reformat(self, frame: VideoFrame, pixel_format: str) -> VideoFrame:
        return self._reformatter.reformat(
            frame,
            format=pixel_format,
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            src_color_range=self._range,
            dst_color_range=self._range,
            interpolation=_HOW,
        )


def bits(pixel_format: VideoFormat) -> int:
    """Of a channel."""
    return max(component.bits for component in pixel_format.components)


def _to_rgb(matrix: int, full: bool, depth: int) -> NDArray[np.float64]:
    """The 4x4 matrix from YUV of ``depth`` bits to RGB, both in 8 or 16 bits."""
    red, blue = _LUMA[matrix]
    green = 1 - red - blue
    from_chroma = np.array(
        [
            [1, 0, 2 - 2 * red],
            [1, -blue * (2 - 2 * blue) / green, -red * (2 - 2 * red) / green],
            [1, 2 - 2 * blue, 0],
        ]
    )
    width = 8 if depth <= 8 else 16
    white = ((1 << depth) - 1) << (width - depth)
    unit = 1 << (width - 8)
    black, luma, chroma = (0, white, white) if full else (16 * unit, 219 * unit, 224 * unit)
    made = np.eye(4)
    made[:3, :3] = from_chroma * (((1 << width) - 1) / np.array([luma, chroma, chroma]))
    made[:3, 3] = -made[:3, :3] @ np.array([black, 128 * unit, 128 * unit])
    return made


def _transformed(image: Pixels, by: NDArray[np.float64]) -> Pixels:
    return cv2.transform(image, by[:3])  # type: ignore[return-value] # rounded and clamped, in the image's type
