"""Files of weights: what one is, by its content, and what it holds; nothing in it is ever run."""

from __future__ import annotations

import io
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import torch
from torch import Tensor

from .errors import WeightsError
from .files import user_path
from .pickles import PROTOCOL_2, UnknownStepError, UnsafePickle, as_protocol_2, check_pickle

Iteration: TypeAlias = int | Literal["latest", "best"]
"""Of a training run's checkpoints: its number, the last one, or the one that ``val.best`` has found."""

_LEGACY_PICKLES = 5
"""That torch.load reads of a file without an archive: what it is, version, system, contents, storages."""
_LEGACY = PROTOCOL_2 + b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The first of them."""
_HEAD = 512
_BROKEN = "not a PyTorch checkpoint, or damaged"
_NEEDED = "needed is its state_dict(), saved with torch.save"
_ANEW = "torch.load(FILE, weights_only=False) reads it, if you trust it; save its state_dict() anew"
_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".onnx", ".tar")
EXPORTED = "an exported program, which could run code on loading; needed is .pth or .onnx"
_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x1f\x8b", "compressed by gzip; unpack it"),
    (0, b"BZh", "compressed by bzip2; unpack it"),
    (0, b"\xfd7zXZ", "compressed by xz; unpack it"),
    (0, b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (0, b"Rar!", "a RAR archive; unpack it"),
    (0, b"\x89HDF", f"an HDF5 file, as of Keras and MATLAB; {_NEEDED}"),
    (0, b"version https://git-lfs", "not the weights, but a pointer to them by Git LFS; git lfs pull fetches them"),
    (257, b"ustar", "a tar archive; unpack it, or, if it is a checkpoint of PyTorch 0.1, save its state_dict() anew"),
)
"""What files that are taken for weights have where, and what to do with them."""


def read_checkpoint(path: str | Path) -> Any:
    """What a file of ``torch.save`` or a safetensors file holds, on the CPU; only tensors and plain types are read.

    What it is, its content says, whatever its name.

    Raises:
        WeightsError: The file is missing, damaged, of another kind, or holds objects that would run code.
    """
    path = user_path(path)
    if not os.path.isfile(path):
        raise WeightsError(f"no such checkpoint: {path} (looked from {Path.cwd()})")
    head = _head(path)
    if head[:4] == b"PK\3\4":  # how torch.load tells its formats apart
        return _read_archive(path)
    if _is_safetensors(head) or path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    _refuse_others(path, head)
    return _read_legacy(path)


def is_onnx(path: Path) -> bool:
    """Whether a file is a network in ONNX: by its content, or by its name where that says so."""
    return path.suffix.lower() == ".onnx" or (os.path.isfile(path) and _begins_like_onnx(_head(path)))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from None


def _is_safetensors(head: bytes) -> bool:
    """The length of a header of less than 100 MB, which is the most that safetensors takes, and the header's begin."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 100_000_000


def _begins_like_onnx(head: bytes) -> bool:
    """A protocol buffer whose first field is a version of ONNX, followed by one of those that a model has."""
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 0x40 and head[2] in b"\x12\x1a\x22\x28\x32\x3a\x42"


def _refuse_others(path: Path, head: bytes) -> None:
    """Say what a file is that is no checkpoint, where its first bytes tell."""
    if not head:
        raise WeightsError(f"{path}: an empty file; fetch or make it again")
    if head.lstrip()[:9].lower() in (b"<!doctype", b"<html lan") or head.lstrip()[:6].lower() == b"<html>":
        raise WeightsError(f"{path}: a web page, not what it links to; fetch the file itself")
    if _begins_like_onnx(head):
        raise WeightsError(f"{path}: a network in ONNX; basicsr derain takes it, option files take checkpoints only")
    for place, signature, what in _OTHERS:
        if head[place : place + len(signature)] == signature:
            raise WeightsError(f"{path}: {what}")


@contextmanager
def _saying(path: Path) -> Iterator[None]:
    """Whatever comes up while a file is read says what it is, and what to do."""
    try:
        yield
    except WeightsError:
        raise
    except UnsafePickle as error:
        raise _unsafe(path, f" ({error})") from None
    except UnknownStepError as error:
        raise WeightsError(f"{path}: {error}; {_ANEW}") from None
    except Exception:  # as many ways as there are bytes
        raise WeightsError(f"{path}: {_BROKEN}") from None


def _unsafe(path: Path, why: str = "") -> WeightsError:
    return WeightsError(
        f"{path}: holds more than tensors and plain types, which could run code on loading; refused{why}. "
        "Save its state_dict() alone"
    )


# --- archives, as torch.save writes them since 1.6 ---


def _read_archive(path: Path) -> Any:
    _check_archive(path)
    with _saying(path), zipfile.ZipFile(path) as archive:
        pickles = {name: archive.read(name) for name in archive.namelist() if name.endswith(".pkl")}
        read = {name: _safe(io.BytesIO(data)) for name, data in pickles.items()}
        if read == pickles:
            return _load_file(path)
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w") as changed:
            for name in archive.namelist():
                changed.writestr(name, read.get(name) or archive.read(name))
    copy.seek(0)
    return _load(path, copy)


def _check_archive(path: Path) -> None:
    """Compare what a file of ``torch.save`` holds with its checksums (CRC-32), which PyTorch writes but ignores."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if problem := _other_archive([record.filename for record in records]):
                raise WeightsError(f"{path}: {problem}")
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise WeightsError(f"{path}: a compressed archive, which torch.save does not write; refused")
            if sum(record.file_size for record in records) > path.stat().st_size:
                raise WeightsError(f"{path}: {_BROKEN} (its records are longer than itself)")
            broken = archive.testzip()
    except WeightsError:
        raise
    except Exception as error:  # a damaged archive, too, fails in many ways
        cut = isinstance(error, zipfile.BadZipFile) and not zipfile.is_zipfile(path)
        reason = "" if cut else f" ({str(error) or type(error).__name__})"
        raise WeightsError(f"{path}: {_BROKEN}{reason}") from None
    if broken is not None:
        raise WeightsError(f"{path}: damaged: {broken} in it does not match its checksum; fetch or make it again")


def _other_archive(names: list[str]) -> str | None:
    """What a ZIP archive is that is none of ``torch.save``, where its names tell."""
    if any(name.endswith(("serialized_exported_program.json", "archive_format")) for name in names):
        return EXPORTED
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        return "a TorchScript archive, which holds code; needed is its state_dict()"
    if any(name.endswith("data.pkl") for name in names):
        return None
    if names and all(name.endswith(".npy") for name in names):
        return "arrays of NumPy (.npz); torch.save({name: torch.from_numpy(array), ...}, FILE) makes a checkpoint"
    inside = next((name for name in names if name.lower().endswith(_SUFFIXES)), None)
    return inside and f"a ZIP archive with {inside!r} in it; unpack it, and name that"


# --- files without an archive, as before PyTorch 1.6 ---


def _read_legacy(path: Path) -> Any:
    with _saying(path), path.open("rb") as file:
        first = _safe(file)
        if first != _LEGACY:
            raise WeightsError(
                f"{path}: a pickle that torch.save has not written; save the network's state_dict() with torch.save"
            )
        pickles = [first, *(_safe(file) for _ in range(_LEGACY_PICKLES - 1))]
        end = file.tell()
        file.seek(0)
        if file.read(end) == b"".join(pickles):
            return _load_file(path)
        copy = io.BytesIO(b"".join(pickles) + file.read())
    return _load(path, copy)


# --- what both have in common ---


def _safe(file: BinaryIO) -> bytes:
    """One pickle of a file, in protocol 2, which is what torch.load reads without running code.

    Raises:
        UnsafePickle: It would run code, take years, or fill the memory.
    """
    start = file.tell()
    if file.read(len(PROTOCOL_2)) != PROTOCOL_2:
        file.seek(start)
        data = as_protocol_2(file)
        check_pickle(io.BytesIO(data))
        return data
    file.seek(start)
    check_pickle(file)
    end = file.tell()
    file.seek(start)
    return file.read(end - start)


def _load_file(path: Path) -> Any:
    with path.open("rb") as file:  # by its name, torch.load would take another reader for some
        return _load(path, file)


def _load(path: Path, source: BinaryIO) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says of a damaged file says the error
            return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle fails in as many ways as there are bytes
        # The unpickler's words for a class or function that it does not know.
        unknown = re.search(r"unsupported global|can only (create|build)", str(error), re.IGNORECASE)
        if isinstance(error, pickle.UnpicklingError) and unknown:
            raise _unsafe(path) from None
        raise WeightsError(f"{path}: {_BROKEN}") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except Exception:  # its header may name anything
        raise WeightsError(f"{path}: not a safetensors file, or damaged") from None
