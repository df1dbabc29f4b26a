"""What ``--weights`` may be: nothing, a training run's folder, a checkpoint of anyone's, an exported network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..archs.adapt import Needs, checkpoint_parts
from ..archs.catalogue import Card, card_of, needs_of
from ..archs.runner import Runner
from ..errors import WeightsError
from ..files import sha256_of, user_path
from ..provenance import code_of, modules_of

DEFAULT = Path(__file__).with_name("default_network.safetensors")
"""docs/default-network.md is about it."""


@dataclass(frozen=True)
class Opened:
    """A network that is ready to derain: on the CPU, in evaluation mode, without gradients."""

    network: nn.Module
    needs: Needs
    name: str
    """Of the network's class."""
    file: Path
    """Of its weights."""
    sha256: str
    """Of the file."""
    card: Card | None = None
    """What the catalogue knows of it."""

    @property
    def code(self) -> str:
        """A digest of the code that computes with it."""
        return code_of(Runner.__module__, *modules_of(self.network.modules()))

    @property
    def about(self) -> str:
        """What it is and where it is from, in a line."""
        return f"{self.name}, " + ("the default network" if self.file == DEFAULT else str(self.file))


def open_network(weights: str | Path | None = None) -> Opened:
    """The network of a file or folder.

    Args:
        weights: The folder of a training run (its last checkpoint counts), a checkpoint of this package or of any
            network that it or spandrel recognises, or an ONNX file. None is the network that comes with the package.

    Raises:
        RainOerMeError: There is none, or it cannot be used; the message names it.
    """
    path = DEFAULT if weights is None else user_path(weights)
    if path.is_dir():
        from ..models.opening import open_run

        run = open_run(path)
        network, path = run.network, run.file
    elif path.suffix.lower() == ".onnx":
        from ..archs.onnx_net import OnnxNet

        network = OnnxNet(path)
    elif path.suffix.lower() in (".pt2", ".ts"):
        raise WeightsError(f"{path}: an exported program, which could run code on loading; needed is .pth or .onnx")
    else:
        from ..registered.networks import PretrainedNet

        network = PretrainedNet(str(path))
    network.eval().requires_grad_(False)
    inner = checkpoint_parts(network)[""]
    return Opened(network, needs_of(network), type(inner).__name__, path, sha256_of(path), card_of(inner))
