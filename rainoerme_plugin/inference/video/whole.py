"""Whether a video's file is as long as the lengths that stand in it: FFmpeg reads a cut one as if it ended there."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_SLACK = 8
"""Bytes that a RIFF file may lack: some writers count its own header, or a last byte that fills up."""
_PACKETS = {0: 188, 4: 192}
"""MPEG transport streams: where their first packet has its sign, and how long each is."""


def missing_bytes(path: Path) -> int:
    """How many bytes a file is too short by what it says of itself; 0: none, or it does not say."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] == b"RIFF":
            lacks = _riff_end(file, size) - size
            return lacks if lacks > _SLACK else 0
        if start[:4] == b"\x1a\x45\xdf\xa3":
            return max(0, _matroska_end(file) - size)
        if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return max(0, _boxes_end(file, size) - size)
        for place, packet in _PACKETS.items():
            file.seek(place)
            if file.read(1) == b"G" and file.seek(place + packet) and file.read(1) == b"G":
                return -size % packet
    return 0


def _riff_end(file: BinaryIO, size: int) -> int:
    """Where the last of an AVI's pieces ends: large ones have several."""
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(8)
        if header[:4] != b"RIFF" or len(header) < 8:
            break
        length = int.from_bytes(header[4:], "little")
        if length in (0, 0xFFFFFFFF):  # whoever wrote it has not come to its end
            return size
        end += 8 + length + length % 2
    return end


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last box of an MP4 or MOV ends (ISO/IEC 14496-12, section 4.2)."""
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if not (kind.isalnum() or len(header) < 8 or header[4:5] == b"\xa9"):
            break  # what follows is none
        if length == 0:  # to the end of the file
            return size
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        if length < 8:
            break
        end += length
    return end


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment ends (RFC 8794, sections 4 and 5); 0: it does not say."""
    file.seek(0)
    for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        if file.read(4) != name:
            return 0
        first = file.read(1)
        if not first or not first[0]:
            return 0
        more = 8 - first[0].bit_length()
        length = int.from_bytes(first + file.read(more), "big") & ((1 << 7 * (more + 1)) - 1)
        if name[0] == 0x1A:
            file.seek(length, 1)
    unknown = (1 << 7 * (more + 1)) - 1
    return 0 if length == unknown else file.tell() + length
