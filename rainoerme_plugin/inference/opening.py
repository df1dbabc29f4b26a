"""What ``--weights`` may be: nothing, a training run's folder, a checkpoint of anyone's, an exported network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..archs.adapt import Needs, checkpoint_parts, name_of
from ..archs.catalogue import Card, card_of, needs_of
from ..archs.runner import Runner
from ..checkpoint_files import EXPORTED, Iteration, is_onnx
from ..errors import OptionError, WeightsError
from ..files import sha256_of, user_path
from ..provenance import code_of, modules_of

_KEY = "key, on the command line --key:"
_REMEDY = "if you know which, basicsr test and basicsr benchmark run it by its name (docs/networks.md)"

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
    key: str | None = None
    """Where in the file the weights are, if that was said."""
    card: Card | None = None
    """What the catalogue knows of it."""

    @property
    def code(self) -> str:
        """A digest of the code that computes with it."""
        return code_of(Runner.__module__, *modules_of(self.network.modules()))

    @property
    def identity(self) -> str:
        """What makes it this network and no other, for those who keep results."""
        return self.sha256 if self.key is None else hashlib.sha256(f"{self.sha256} {self.key}".encode()).hexdigest()

    @property
    def about(self) -> str:
        """What it is and where it is from, in a line."""
        return f"{self.name}, " + ("the default network" if self.file == DEFAULT else str(self.file))


def open_network(weights: str | Path | None = None, key: str | None = None, iteration: Iteration = "latest") -> Opened:
    """The network of a file or folder.

    Args:
        weights: The folder of a training run, a checkpoint of this package or of any
            network that it or spandrel recognises, or an ONNX file. None is the network that comes with the package.
        key: Where in a checkpoint the weights are, as of `weights.find_state_dict`; None looks in the usual places.
        iteration: Which checkpoint of a training run: its number, ``latest``, or ``best``, as ``val.best`` found it.

    Raises:
        RainOerMeError: There is none, or it cannot be used; the message names it.
    """
    path = DEFAULT if weights is None else user_path(weights)
    network: nn.Module
    is_run = path.is_dir()
    if key is not None and (is_run or is_onnx(path)):
        raise OptionError(
            f"{path}: a {'training run' if is_run else 'network in ONNX'} has no keys; leave out key (--key)"
        )
    if iteration != "latest" and not is_run:
        raise OptionError(f"iteration (--iteration) {iteration}: is of a training run's folder, which {path} is not")
    if is_run:
        from ..models.opening import open_run

        run = open_run(path, iteration)
        network, path = run.network, run.file
    elif is_onnx(path):
        from ..archs.onnx_net import OnnxNet

        network = OnnxNet(path)
    elif path.suffix.lower() in (".pt2", ".ts"):
        raise WeightsError(f"{path}: {EXPORTED}")
    else:
        from ..weights import recognised

        network = recognised(path, key, option=_KEY, remedy=_REMEDY)
    network.eval().requires_grad_(False)
    inner = checkpoint_parts(network)[""]
    return Opened(network, needs_of(network), name_of(network), path, sha256_of(path), key, card_of(inner))
