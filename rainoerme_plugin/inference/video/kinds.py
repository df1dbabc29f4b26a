"""Which files are videos, by their names, and what becomes of those that are not read."""

from __future__ import annotations

from pathlib import Path

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".f4v"),
    *(".mkv", ".webm", ".avi"),
    *(".ts", ".mts", ".m2ts", ".m2t"),
)
"""Of videos that are read, and written in the same container."""

_COPY = "ffmpeg -fflags +genpts -i IN -c copy OUT.mkv"
_SOUND_ANEW = "ffmpeg -i IN -c:v copy -c:a flac OUT.mkv"
_ENCODE = "ffmpeg -r 25 -i IN -c:v libx264 -crf 10 OUT.mkv, with its own rate"
_LOSSLESS = "ffmpeg -i IN -c:v ffv1 OUT.mkv"
_WITHOUT_ALPHA = "ffmpeg -i IN -c:v ffv1 -pix_fmt bgr0 OUT.mkv"
_CONVERTED = {
    # Containers that do not tell when each frame is shown, or hold codecs for which there is no encoder.
    **dict.fromkeys((".mpg", ".mpeg", ".mpe", ".m1v", ".m2p", ".vob", ".tod"), _COPY),
    **dict.fromkeys((".flv", ".ogv", ".ogm", ".divx", ".dv", ".nut", ".mk3d", ".amv", ".nsv", ".ivf"), _COPY),
    **dict.fromkeys((".rm", ".rmvb", ".wmv", ".asf", ".wtv", ".dvr-ms"), _SOUND_ANEW),
    **dict.fromkeys((".mxf", ".gxf", ".qt"), "ffmpeg -i IN -map 0:v -map 0:a? -c copy OUT.mov"),
    # The picture alone, without a time for each frame.
    **dict.fromkeys((".m2v", ".mpv", ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".vc1", ".obu"), _ENCODE),
    **dict.fromkeys((".y4m", ".mjpeg", ".mjpg"), _LOSSLESS),
    **dict.fromkeys((".gif", ".apng"), _WITHOUT_ALPHA),
}
"""How videos of other kinds become such as are read, by their suffix."""


def is_video(path: Path) -> bool:
    """Whether a file is a video by its name, of a kind that is read or not."""
    return path.suffix.lower() in (*VIDEO_SUFFIXES, *_CONVERTED)


def converted(names: str) -> str | None:
    """How a video of a format that is not read becomes one that is, by FFmpeg's names of the format; None: unknown."""
    known = (_CONVERTED.get(f".{_SUFFIX_OF.get(name, name)}") for name in names.split(","))
    return next(filter(None, known), None)


_SUFFIX_OF = {"mpeg": "mpg", "ogg": "ogv", "mpegvideo": "m2v", "yuv4mpegpipe": "y4m"}


def why_unread(path: Path) -> str | None:
    """What keeps a video from being read, by its name, and how it is converted; None: nothing, or it is none."""
    remedy = _CONVERTED.get(path.suffix.lower())
    if remedy is None:
        return None
    kinds = ", ".join(VIDEO_SUFFIXES)
    return f"{path}: a video of a kind that is not read ({kinds} are); convert it first ({remedy})"
