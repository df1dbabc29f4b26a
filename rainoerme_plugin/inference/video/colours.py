"""Frames of videos to RGB, and what a network changes of it back to them: what it leaves alone comes back to the bit.

The network sees RGB by the video's own matrix and range, chroma in the places of its siting. What is written is the
source's own samples and, on top, the difference between the derained and the rainy RGB, which is linear in both: so no
rounding, clipping or resampling on the way there and back can show where nothing was changed, whatever the format.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter
from numpy.typing import NDArray

from ...data.images import Pixels, levels

if TYPE_CHECKING:
    from av.video.format import VideoFormat
    from av.video.frame import VideoFrame

Difference = NDArray[np.float32]
"""(H, W, 3), derained less rainy RGB, in levels of the rainy image's type."""
_Plane = NDArray[np.uint8] | NDArray[np.uint16]
_Samples = NDArray[np.float32]

SD_LINES = 720
"""Untagged videos of fewer lines have BT.601's matrix, others BT.709's: what players assume."""
_LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),  # the constant-luminance kind, which players take for the other one
}
"""What red and blue have of the luma, by the streams' tags (ITU-T H.273, table 4)."""
_ITU601, _YCGCO = 5, 8
_SWSCALE = {6: 5, 10: 9, _YCGCO: 1}
"""swscale's numbers for the tags where they differ; it is asked for RGB only by those that it knows."""
_EXACT = 0x4 | 0x40000 | 0x80000
"""swscale's BICUBIC, ACCURATE_RND and BITEXACT: it only moves samples to other places here."""
_CENTRED = ("mjpeg", "mpeg1video")
"""Codecs whose subsampled chroma lies midway between the luma samples of a row; others have it at every second one."""
_UNREAD = re.compile(r"^xyz|f16|f32")
"""Pixel formats that hold no RGB or YUV of whole numbers."""


class Colours:
    """The way of one video's frames to RGB and back; one for each thread.

    Args:
        pixel_format: Of the video's frames, FFmpeg's name.
        height: Of its frames, as they are stored.
        tagged_range: Whether YUV has all levels, as the video says.
        tagged_matrix: Of YUV, as the video says.
        codec: Of the video, FFmpeg's name; it decides where the chroma's samples lie.

    Attributes:
        dtype: Of RGB.
    """

    def __init__(self, pixel_format: str, height: int, tagged_range: int, tagged_matrix: int, codec: str = "") -> None:
        self._planar = planar(pixel_format)
        own = av.VideoFormat(self._planar)
        self._depth = bits(own)
        self.dtype = np.dtype(np.uint8 if self._depth <= 8 else np.uint16)
        self._kind = cv2.CV_8U if self._depth <= 8 else cv2.CV_16U
        self._order = [component.plane for component in own.components]
        self._is_rgb, self._is_grey = own.is_rgb, len(own.components) == 1
        self._step = _steps(own)
        self._first = (self._step[0] - 1) / 2 if codec in _CENTRED else 0.0
        # Grey without a tag has all levels, as in pictures.
        full = tagged_range == ColorRange.JPEG or pixel_format.startswith("yuvj")
        full = full or (self._is_grey and tagged_range != ColorRange.MPEG)
        if tagged_matrix not in (*_LUMA, _YCGCO):
            tagged_matrix = _ITU601 if height < SD_LINES else 1
        self._tags = _SWSCALE.get(tagged_matrix, tagged_matrix), ColorRange.JPEG if full else ColorRange.MPEG
        unit, white = 1 << (self._depth - 8), levels(self.dtype)
        black, luma, chroma = (0, self._top, self._top) if full else (16 * unit, 219 * unit, 224 * unit)
        to_rgb = _from_chroma(tagged_matrix) * (white / np.array([luma, chroma, chroma]))
        self._black, self._grey_to_rgb = black, white / luma
        offset = -to_rgb @ np.array([black, 128 * unit, 128 * unit])
        self._to_rgb = np.float32(np.concatenate([to_rgb, offset[:, None]], axis=1))
        self._from_rgb = np.float32(np.linalg.inv(to_rgb))
        self._reformatter = VideoReformatter()

    def rgb(self, frame: VideoFrame) -> Pixels:
        """(H, W, 3) uint8 or uint16 RGB."""
        planes = self._planes(self._apart(frame))
        if self._is_rgb and self._depth in (8, 16):
            return cv2.merge(planes)  # type: ignore[return-value]
        if self._is_rgb:
            return self._rounded(np.float32(cv2.merge(planes)) * np.float32(levels(self.dtype) / self._top))
        if self._is_grey:
            grey = self._rounded((np.float32(planes[0]) - self._black) * np.float32(self._grey_to_rgb))
            return cv2.merge([grey] * 3)  # type: ignore[return-value]
        size = planes[0].shape
        yuv = cv2.merge([np.float32(planes[0]), *(self._larger(np.float32(plane), size) for plane in planes[1:])])
        return self._rounded(cv2.transform(yuv, self._to_rgb))

    def changed(self, frame: VideoFrame, by: Difference, pixel_format: str) -> VideoFrame:
        """A copy of a frame of the video in which RGB is changed by so much, in any pixel format."""
        source = self._apart(frame)
        made = av.VideoFrame(source.width, source.height, self._planar)
        if self._is_rgb:
            changes = [by[..., channel] * np.float32(self._top / levels(self.dtype)) for channel in range(3)]
        else:
            count = len(source.planes)
            changes = [cv2.transform(by, self._from_rgb[row : row + 1]) for row in range(count)]
            changes[1:] = map(self._smaller, changes[1:])
        for old, new, change in zip(self._planes(source), self._planes(made), changes, strict=True):
            samples = cv2.add(old, change, dtype=self._kind)
            new[:] = samples if self._depth in (8, 16) else np.minimum(samples, self._top)
        return self._reformatted(made, pixel_format)

    @property
    def _top(self) -> int:
        return (1 << self._depth) - 1

    def _planes(self, frame: VideoFrame) -> list[_Plane]:
        """Views of the samples, R, G, B or Y, U, V."""
        kind = np.dtype(np.uint8 if self._depth <= 8 else np.uint16)
        planes = [frame.planes[number] for number in self._order]
        return [
            np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width]  # type: ignore[call-overload]
            for plane in planes
        ]

    def _rounded(self, image: Any) -> Any:
        """Within the levels of RGB's type."""
        nothing: Any = (0, 0, 0, 0)
        return cv2.add(image, nothing, dtype=self._kind)

    def _larger(self, plane: _Samples, size: tuple[int, ...]) -> _Samples:
        """Chroma at the places of all luma samples, linearly between its own."""
        across, down = self._step
        if (across, down) == (1, 1):
            return plane
        where = np.array([[1 / across, 0, -self._first / across], [0, 1 / down, -(down - 1) / 2 / down]])
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(plane, where, size[::-1], flags=how, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]

    def _smaller(self, plane: _Samples) -> _Samples:
        """The mean of samples around each place of the chroma, by the weights with which `_larger` spreads it."""
        across, down = self._step
        if (across, down) == (1, 1):
            return plane
        height, width = -(-plane.shape[0] // down), -(-plane.shape[1] // across)
        more = height * down - plane.shape[0], width * across - plane.shape[1]
        wide = cv2.copyMakeBorder(plane, 0, more[0], across - 1, more[1], cv2.BORDER_REPLICATE)
        # A mean that falls off to both sides is one of means of neighbouring boxes.
        starts = [across - 1] if self._first else range(across)
        boxes = [wide[:, start : start + width * across] for start in starts]
        means = [cv2.resize(box, (width, height), interpolation=cv2.INTER_AREA) for box in boxes]
        return np.float32(sum(means)) / np.float32(len(means))  # type: ignore[return-value]

    def _apart(self, frame: VideoFrame) -> VideoFrame:
        """A frame of the video with each channel in a plane."""
        if frame.format.is_rgb and bits(frame.format) < 8:
            frame = self._reformatted(frame, "rgb24")  # where white becomes white
        return self._reformatted(frame, self._planar)

    def _reformatted(self, frame: VideoFrame, pixel_format: str) -> VideoFrame:
        if frame.format.name == pixel_format:
            return frame
        matrix, range_ = self._tags
        return self._reformatter.reformat(
            frame,
            format=pixel_format,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=range_,
            dst_color_range=range_,
            interpolation=_EXACT,
        )


def bits(pixel_format: VideoFormat) -> int:
    """Of a channel."""
    return max(component.bits for component in pixel_format.components)


def planar(pixel_format: str) -> str:
    """The pixel format that holds the samples of another one, each channel in a plane of its own.

    Raises:
        ValueError: It has none: its samples are not whole numbers, or neither RGB nor YUV.
    """
    own = av.VideoFormat(pixel_format)
    if _UNREAD.search(pixel_format) or own.is_bayer:
        raise ValueError(f"{pixel_format} holds no whole numbers of RGB or YUV")
    depth = bits(own)
    are_apart = len({component.plane for component in own.components}) == len(own.components)
    if are_apart and depth >= 8 and not own.is_big_endian and not own.has_palette and "msb" not in pixel_format:
        return pixel_format
    ending = next((f"{each}le" for each in (9, 10, 12, 14, 16) if 8 < depth <= each), "")
    if own.is_rgb or own.has_palette:
        return f"gbrp{ending}"
    if len(own.components) == 1:
        return f"gray{ending}"
    shape = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411", (4, 4): "410"}
    return f"yuv{shape[_steps(own)]}p{ending}"


def _steps(pixel_format: VideoFormat) -> tuple[int, int]:
    """Columns and rows of luma for one sample of chroma."""
    return 256 // pixel_format.chroma_width(256), 256 // pixel_format.chroma_height(256)


def _from_chroma(matrix: int) -> NDArray[np.float64]:
    """(3, 3): from luma of 0 to 1 and chroma of -0.5 to 0.5 to RGB of 0 to 1 (ITU-T H.273, section 8.3)."""
    if matrix == _YCGCO:
        return np.array([[1.0, -1, 1], [1, 1, 0], [1, -1, -1]])
    red, blue = _LUMA[matrix]
    green = 1 - red - blue
    return np.array(
        [
            [1, 0, 2 - 2 * red],
            [1, -blue * (2 - 2 * blue) / green, -red * (2 - 2 * red) / green],
            [1, 2 - 2 * blue, 0],
        ]
    )
