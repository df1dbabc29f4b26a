"""What a derained video no longer says that its source does: compared, not guessed, and told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from av.sidedata.sidedata import Type as SideData

from .colours import planar
from .containers import COUNTED
from .reading import Look, look_at, opened

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

_BESIDE = {
    SideData.MASTERING_DISPLAY_METADATA: "HDR10 levels of the mastering display",
    SideData.CONTENT_LIGHT_LEVEL: "HDR10 light levels",
    SideData.DYNAMIC_HDR_PLUS: "HDR10+ scenes",
    SideData.DYNAMIC_HDR_VIVID: "HDR Vivid scenes",
    SideData.AMBIENT_VIEWING_ENVIRONMENT: "tags of the light to watch it in",
    SideData.DOVI_METADATA: "Dolby Vision layers",
    SideData.DOVI_RPU_BUFFER: "Dolby Vision layers",
    SideData.ICC_PROFILE: "colour profiles",
    SideData.SPHERICAL: "tags of a video all around",
    SideData.STEREO3D: "tags of a stereoscopic video",
    SideData.AFD: "tags of the part that is to be shown",
    SideData.A53_CC: "captions inside of the picture's stream",
    SideData.GOP_TIMECODE: "timecodes inside of the picture's stream",
    SideData.S12M_TIMECODE: "timecodes inside of the picture's stream",
    SideData.SEI_UNREGISTERED: "private data inside of the picture's stream",
}
"""What stands beside frames, and PyAV cannot write."""
_ENCODERS = (
    bytes.fromhex("dc45e9bde6d948b7962cd820d923eeef"),  # x264
    bytes.fromhex("2ca2de09b51747dbbb55a4fe7fc2fc4e"),  # x265
)
"""Marks of the encoders that tell their own settings in private data."""
_COLOUR_TAGS = ("range", "primaries", "transfer", "matrix")
_OF_THE_WRITER = {
    "encoder",
    "major_brand",
    "minor_version",
    "compatible_brands",
    "handler_name",
    "vendor_id",
    "software",
}
"""Tags that speak of a file, and not of what it holds."""
_TOLD = ("language", "title", "timecode")
"""Tags of streams that somebody has chosen."""


def beside(frame: VideoFrame) -> set[str]:
    """What stands beside a frame and cannot be kept."""
    side_data: Any = frame.side_data
    return {
        _BESIDE[data.type]
        for data in side_data
        if data.type in _BESIDE and not (data.type == SideData.SEI_UNREGISTERED and bytes(data)[:16] in _ENCODERS)
    }


def what_is_lost(source: Path, look: Look, file: Path, target: Path) -> list[str]:
    """What the derained video in ``file``, which becomes ``target``, has otherwise than its source, a line each."""
    made = look_at(file)[0]
    lost = []
    if made.codec != look.codec:
        lost.append(f"its codec is {made.codec}, not {look.codec}, for which there is no encoder")
    if _plain(made) != _plain(look):
        lost.append(f"its pixels are {made.pixel_format}, not {look.pixel_format}, which its encoder does not take")
    if (made.aspect or 1) != (look.aspect or 1):
        lost.append(f"its pixels are shaped {made.aspect or 1}, not {look.aspect or 1}: its container does not say")
    if made.display != look.display:
        lost.append("how a player is to turn it is not kept: its container does not say")
    tags = [name for name, old, new in zip(_COLOUR_TAGS, look.tags, made.tags, strict=True) if old not in (0, 2, new)]
    if tags:
        lost.append(f"its tags of colour ({', '.join(tags)}) are not kept: its container does not say")
    with opened(source) as (old, _), opened(file) as (new, _):
        if names := sorted(_names(old.metadata) - _names(new.metadata)):
            lost.append(f"tags of the file are not kept ({', '.join(names)})")
        if len(old.chapters()) != len(new.chapters()):
            lost.append("chapters are not kept")
        if names := sorted(_stream_tags(old) - _stream_tags(new)):
            lost.append(f"tags of streams are not kept ({', '.join(names)})")
    return [f"{target}: {line}" for line in lost]


def _names(tags: dict[str, str]) -> set[str]:
    return {name.lower() for name in tags if not name.startswith(COUNTED)} - _OF_THE_WRITER


def _stream_tags(container: InputContainer) -> set[str]:
    tags = [item for stream in container.streams if stream.type != "data" for item in stream.metadata.items()]
    return {f"{name}={value}" for name, value in tags if name in _TOLD and value != "und"}


def _plain(look: Look) -> str:
    """The samples of a video, however they are packed; the range has a tag of its own."""
    return planar(look.pixel_format).replace("yuvj", "yuv")
