"""A network as one file that other programs run: ONNX, or PyTorch's exported program (``.pt2``).

What is exported takes RGB images (N, 3, H, W), float32 in [0, 1], of any height and width, and gives the derained ones,
clamped to [0, 1]: what the network needs of its input, padding and cropping, is in the graph.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import __version__
from ..archs.adapt import Needs, checkpoint_parts, derain
from ..archs.catalogue import card_of
from ..archs.distillation_net import DistillationNet
from ..archs.onnx_net import FORMAT, INSTALL, LARGEST_MULTIPLE, PREFIX, OnnxNet
from ..archs.receptive_field import align, receptive_field
from ..data.images import Pixels, to_tensor
from ..errors import OptionError, RainOerMeError, one_line
from ..files import write_whole

INPUT, OUTPUT = "rainy", "derained"
OPSET = 18
"""Of ONNX: what the exporter writes by itself, and runtimes have known since 2023."""
TOLERANCE = 1e-4
"""Largest difference from PyTorch: 1/40 of a step of 8 bits."""
SUFFIXES = (".onnx", ".pt2")
_SIZES = ((1, 1, 1), (1, 5, 3), (2, 33, 47), (1, 64, 96), (2, 101, 70))
"""Images, height and width of the random images of the check."""
_METADATA = "metadata.json"
"""In a ``.pt2``."""


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how near it is to PyTorch."""

    path: Path
    format: str
    """``ONNX`` or ``PyTorch``."""
    opset: int | None
    """Of ONNX."""
    parameters: int
    bytes: int
    checks: tuple[tuple[int, int, float], ...]
    """Height, width and largest absolute difference of each image or batch that was compared."""

    @property
    def largest(self) -> float:
        """The largest difference of all."""
        return max(difference for *_, difference in self.checks)


def export_network(network: nn.Module, needs: Needs, path: Path, *, images: Sequence[Pixels] = ()) -> ExportReport:
    """Write a network to one file, which is there only once it has been loaded and given PyTorch's results.

    Args:
        network: Any that `archs.adapt.derain` runs; it stays as it is.
        needs: What it asks of its input.
        path: ``.onnx`` or ``.pt2``; what is there is replaced.
        images: Are compared beside random ones of several sizes; none: one like a photograph.

    Raises:
        OptionError: The suffix is another, the packages for ONNX are missing, or the network cannot be exported for
            images of all sizes.
        RainOerMeError: The exported network gives other results than PyTorch.
        OSError: The file cannot be written.
    """
    check_suffix(path)
    is_onnx = path.suffix.lower() == ".onnx"
    if is_onnx:
        _need_onnx()
    if isinstance(network, OnnxNet):
        raise OptionError(f"{network.file} is exported already; needed is a network of PyTorch")
    if isinstance(network, DistillationNet):  # what it adds to its backbone is for training
        needs, network = network.backbone_needs, network.backbone
    # A copy: whoever holds the network may train it, on another device.
    network = copy.deepcopy(network).to("cpu", torch.float32).eval().requires_grad_(False)
    about = _about(network, needs)
    program = _trace(network, needs)
    data = (_to_onnx if is_onnx else _to_pt2)(program, about)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"network{path.suffix.lower()}"
        file.write_bytes(data)
        checks = _compare(network, needs, _load(file), images)
    largest = max(
        (difference for *_, difference in checks), key=lambda value: (value != value, value), default=float("nan")
    )
    if not largest < TOLERANCE:
        raise RainOerMeError(
            f"{path} was not written: the exported {about['network']} differs from PyTorch by {largest:.2g} of 1, and "
            f"{TOLERANCE:g} is allowed"
        )
    write_whole(path, data)
    parameters = sum(value.numel() for value in checkpoint_parts(network)[""].parameters())
    return ExportReport(
        path, "ONNX" if is_onnx else "PyTorch", OPSET if is_onnx else None, parameters, len(data), tuple(checks)
    )


def check_suffix(path: Path) -> None:
    """Raise an `OptionError` if a file's suffix is none that can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"{path}: a network is exported to .onnx or .pt2; the suffix says to which")


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise OptionError(f"an export to ONNX needs more packages: {INSTALL} ({one_line(error)})") from error


def _about(network: nn.Module, needs: Needs) -> dict[str, str]:
    """The metadata, which `OnnxNet` reads."""
    inner = checkpoint_parts(network)[""]
    about = {
        "format": str(FORMAT),
        "version": __version__,
        "network": type(inner).__name__,
        # The graph pads by itself. But a large image that is cut has to be cut in the network's grid.
        "multiple": str(needs.multiple),
    }
    if needs.multiple > LARGEST_MULTIPLE:
        raise OptionError(f"a network that needs multiples of {needs.multiple} pixels cannot be exported")
    field = receptive_field(network, needs)
    if field is not None:
        about["receptive_field"] = str(field)
    card = card_of(inner)
    if card is not None:
        about |= {"paper": card.paper, "source": card.source, "licence": card.licence}
    return about


# --- the graph ---


class _Whole(nn.Module):
    """`archs.adapt.derain` with nothing in it that depends on the numbers of an image's size."""

    def __init__(self, network: nn.Module, needs: Needs) -> None:
        super().__init__()
        self.network, self.needs = network, needs

    def forward(self, rainy: Tensor) -> Tensor:
        height, width = rainy.shape[2:]
        padded = self._pad(rainy)
        result = self.network(padded)
        if self.needs.output is not None and not isinstance(result, Tensor):
            result = list(result)[self.needs.output]
        return result[:, :, :height, :width].clamp(0, 1)

    def _pad(self, rainy: Tensor) -> Tensor:
        needs = self.needs
        if (needs.multiple, needs.minimum, needs.square) == (1, 1, False):
            return rainy
        wanted = [_wanted(size, needs) for size in rainy.shape[2:]]
        if needs.square:
            wanted = [torch.sym_max(*wanted)] * 2
        for axis, size in zip((2, 3), wanted, strict=True):
            there, mirror = rainy.shape[axis], _mirror(rainy.shape[axis], size, rainy.device)
            rainy = rainy.index_select(axis, mirror)
            if needs.zeros:
                within = torch.arange(size, device=rainy.device) < torch.scalar_tensor(there, device=rainy.device)
                rainy = rainy * within.to(rainy.dtype).view([-1, 1] if axis == 2 else [1, -1])
        return rainy


def _wanted(size: int, needs: Needs) -> int:
    """How many pixels an axis must have.

    The number of multiples goes through a tensor, so that the exporter knows nothing of it: times 4 it is divisible by
    4, where of a height that was rounded up it would have to be proved at every stride.
    """
    units = (torch.sym_max(size, needs.minimum) + needs.multiple - 1) // needs.multiple
    count = torch.scalar_tensor(units, dtype=torch.int64).item()
    assert isinstance(count, int | torch.SymInt)
    torch._check(count >= 1)
    return count * needs.multiple


def _mirror(size: int, padded: int, device: torch.device) -> Tensor:
    """As `archs.adapt.mirrored`: there and back again, and then the first one for ever."""
    last = torch.scalar_tensor(size - 1, dtype=torch.int64, device=device)  # a tensor, so that the graph computes it
    place = torch.arange(padded, device=device)
    return torch.where(place > last, (2 * last - place).clamp(min=0), place)


def _trace(network: nn.Module, needs: Needs) -> Any:
    """The network as PyTorch's exported program, for any number, height and width of images."""
    least = align(max(needs.minimum, 40), needs.multiple)
    example = torch.rand(2, 3, least + 3, least + needs.multiple + 6, generator=torch.Generator().manual_seed(0))
    free = torch.export.Dim.DYNAMIC
    try:
        derain(network, example, needs)  # what is wrong with the network itself is said in its words
        with _quiet(), torch.no_grad():
            shapes = {"rainy": {0: free, 2: free, 3: free}}
            return torch.export.export(_Whole(network, needs), (example,), dynamic_shapes=shapes)
    except RainOerMeError:
        raise
    except Exception as error:  # whatever it is that the exporter cannot do
        raise _cannot(network, error) from error


def _cannot(network: nn.Module, error: Exception) -> OptionError:
    name = type(checkpoint_parts(network)[""]).__name__
    return OptionError(f"{name} cannot be exported for images of all sizes ({one_line(error)[:400]})")


def _to_onnx(program: Any, about: dict[str, str]) -> bytes:
    import onnx

    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
            assert exported is not None
            model = exported.model_proto
    except Exception as error:  # the exporter's errors have no class in common
        name = about["network"]
        raise OptionError(
            f"{name} cannot be exported to ONNX: PyTorch's exporter says: {one_line(error)[:400]}"
        ) from error
    _name_sizes(model)
    _drop_notes(model)
    onnx.helper.set_model_props(model, {PREFIX + key: text for key, text in about.items()})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _name_sizes(model: Any) -> None:
    """Call the free sizes by their names, for whoever looks at the file; the exporter calls them s38."""
    for value in (*model.graph.input, *model.graph.output):
        for place, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[place].dim_param = name
    # Sizes in between are in terms of the old names; runtimes find them anew.
    del model.graph.value_info[:]


def _drop_notes(model: Any) -> None:
    """Drop what the exporter notes for its authors: the source of each operator, with this machine's folders."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")


def _to_pt2(program: Any, about: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer, extra_files={_METADATA: json.dumps(about)})
    return buffer.getvalue()


# --- the check ---


def _load(file: Path) -> Callable[[Tensor], Tensor]:
    if file.suffix == ".onnx":
        return OnnxNet(file)
    with _quiet():
        return torch.export.load(file).module()


@torch.no_grad()
def _compare(
    network: nn.Module, needs: Needs, exported: Callable[[Tensor], Tensor], images: Sequence[Pixels]
) -> list[tuple[int, int, float]]:
    random = torch.Generator().manual_seed(0)
    batches = [torch.rand(count, 3, height, width, generator=random) for count, height, width in _SIZES]
    batches += [to_tensor(image)[None] for image in images] or [_like_a_photograph(random)]
    checks = []
    for rainy in batches:
        try:
            wanted = derain(network, rainy, needs).clamp(0, 1)
        except (OptionError, RuntimeError, ValueError):
            continue  # too small for the network itself
        try:
            found = exported(rainy)
        except Exception as error:  # of either runtime
            raise _cannot(network, error) from error
        difference = float((wanted - found).abs().max()) if found.shape == wanted.shape else float("inf")
        checks.append((rainy.shape[2], rainy.shape[3], difference))
    return checks


def _like_a_photograph(random: torch.Generator) -> Tensor:
    """Patches of several sizes on each other, and streaks: smooth areas, edges and rain (1, 3, 120, 164)."""
    size = (120, 164)
    image = torch.zeros(1, 3, *size)
    for share, cells in ((0.5, 3), (0.3, 9), (0.15, 40)):
        patches = torch.rand(1, 3, cells, cells, generator=random)
        image += share * functional.interpolate(patches, size, mode="bilinear", align_corners=False)
    rows, columns = torch.meshgrid(*(torch.arange(length) for length in size), indexing="ij")
    streaks = (rows // 3 + 3 * columns) % 67 < 2
    return (image + 0.3 * streaks).clamp(0, 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what the exporter prints, warns of and logs."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
