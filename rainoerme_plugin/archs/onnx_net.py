"""An ONNX file as a network: of this package's ``basicsr export``, or of anyone's.

ONNX Runtime computes it; it is imported with the first file, so that this module is there without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import OptionError, WeightsError, one_line
from .adapt import Needs

FORMAT = 1
"""Of the metadata that `inference.export` writes."""
PREFIX = "rainoerme_plugin."
"""Of their keys."""
INSTALL = "pip install 'rainoerme_plugin[onnx]'"
LARGEST_MULTIPLE = 4096
_NOTHING_BUT_FATAL = 4
_SHORT_OF_MEMORY = ("bad_alloc", "Failed to allocate", "out of memory", "smaller than requested bytes")


class OnnxNet(nn.Module):
    """A derainer in an ONNX file: one float32 input (N, 3, H, W) of any height and width, one output of its shape.

    It has no parameters, and gives no gradients. It may be called from several threads at once.

    Args:
        file: The file; all of the network is in it. N may be fixed to 1: images then go through one by one.

    Attributes:
        needs: What it asks of its input: the multiple in the file's metadata, or nothing. A file of this package takes
            every size; the multiple is the grid in which large images are cut.
        receptive_field: Pixels that a tile needs around it, of the metadata. None: it looks at the whole image, or it
            is not known.
        metadata: What else `inference.export` has written, without the keys' prefix; empty of others' files.

    Raises:
        WeightsError: The file is no such network.
        OptionError: ONNX Runtime is not installed.
        OSError: The file cannot be read.
    """

    def __init__(self, file: str | Path) -> None:
        super().__init__()
        self.file = Path(file)
        self._session = self._open("CPUExecutionProvider")
        try:
            self._one_by_one = self._check()
            found = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError:
            raise self._error("its names are no text: it is damaged") from None
        self.metadata = {key[len(PREFIX) :]: text for key, text in found.items() if key.startswith(PREFIX)}
        if self._number("format", 0, 1 << 30) not in (None, FORMAT):
            raise self._error(
                f"its metadata are of format {self.metadata['format']}; a newer rainoerme_plugin reads it"
            )
        self.needs = Needs(multiple=self._number("multiple", 1, LARGEST_MULTIPLE) or 1)
        self.receptive_field = self._number("receptive_field", 0, 1 << 20)

    def place(self, device: torch.device) -> None:
        """Compute on this device from now on.

        Raises:
            OptionError: ONNX Runtime, as it is installed, cannot.
        """
        if device.type == "cpu":
            self._session = self._open("CPUExecutionProvider")
            return
        if device.type != "cuda":
            raise OptionError(f"{self.file}: ONNX files are computed on the CPU or on CUDA; use --device cpu")
        provider = "CUDAExecutionProvider"
        if provider in _onnxruntime().get_available_providers():
            # Full float32, as PyTorch's convolutions are here; and no search for the best algorithm at each new size.
            asked = {"device_id": device.index or 0, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
            session = self._open(provider, asked)
            if provider in session.get_providers():  # else it has quietly fallen back to the CPU
                self._session = session
                return
        raise OptionError(
            f"{self.file}: the ONNX Runtime that is installed does not compute on CUDA; pip install onnxruntime-gpu "
            "(in place of onnxruntime), or use --device cpu"
        )

    def forward(self, rainy: Tensor) -> Tensor:
        """Derain ``rainy`` (B, 3, H, W), floating point in [0, 1], on any device.

        Returns:
            The derained image, float32, of the same shape and on the same device. Files of this package clamp it.

        Raises:
            MemoryError: There is not enough memory for this size.
            OptionError: The network fails on this size.
        """
        inputs = rainy.detach().to("cpu", torch.float32).contiguous()
        parts = inputs.split(1) if self._one_by_one else (inputs,)
        return torch.cat([self._run(part) for part in parts]).to(rainy.device)

    def extra_repr(self) -> str:
        return str(self.file)

    def _run(self, inputs: Tensor) -> Tensor:
        options = _onnxruntime().RunOptions()
        options.log_severity_level = _NOTHING_BUT_FATAL
        try:
            (result,) = self._session.run(None, {self._session.get_inputs()[0].name: inputs.numpy()}, options)
        except Exception as error:  # ONNX Runtime's errors have no class in common
            if any(words in str(error) for words in _SHORT_OF_MEMORY):
                raise MemoryError(one_line(error)) from error
            size = f"{inputs.shape[3]}x{inputs.shape[2]}"
            raise OptionError(f"{self.file} does not take images of {size} pixels ({_said(error)})") from error
        return torch.from_numpy(result)

    # --- opening ---

    def _open(self, provider: str, asked: Mapping[str, object] | None = None) -> Any:
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = _NOTHING_BUT_FATAL
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # All is in the one file: one that names others, wherever they lie, does not have them read.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _nowhere(self.file))
        if not self.file.is_file():
            raise self._error("there is no such file")
        data = self.file.read_bytes()
        try:
            # Its own fallback tries the same once more, and prints.
            return runtime.InferenceSession(data, options, [(provider, dict(asked or {}))], enable_fallback=0)
        except Exception as error:  # whatever it is that it dislikes
            reason = "part of it is in other files; needed is one file" if "xternal" in str(error) else _said(error)
            raise self._error(reason) from error

    def _check(self) -> bool:
        """Whether images go through one by one; the shape that the file declares has to be a derainer's."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise self._error(f"it has {len(inputs)} inputs and {len(outputs)} outputs; needed is one of each")
        for kind, value in (("input", inputs[0]), ("output", outputs[0])):
            if value.type != "tensor(float)":
                raise self._error(f"its {kind} is {value.type}; needed is tensor(float), which is float32")
        shape = inputs[0].shape
        if len(shape) != 4 or shape[1] != 3:
            raise self._error(f"its input is {_shape(shape)}; needed is (N, 3, H, W)")
        if any(isinstance(size, int) for size in shape[2:]) or (isinstance(shape[0], int) and shape[0] != 1):
            raise self._error(
                f"its input is {_shape(shape)}; needed are free height and width (dynamic axes), N free or 1"
            )
        return isinstance(shape[0], int)

    def _number(self, key: str, least: int, most: int) -> int | None:
        text = self.metadata.get(key)
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) < 12 and least <= int(text) <= most):
            raise self._error(f"its metadata are damaged: {key} is {text[:40]!r}")
        return int(text)

    def _error(self, reason: str) -> WeightsError:
        return WeightsError(f"{self.file}: no derainer in ONNX: {reason}")


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise OptionError(f"ONNX files need ONNX Runtime: {INSTALL} ({one_line(error)})") from error
    onnxruntime.set_default_logger_severity(_NOTHING_BUT_FATAL)
    return onnxruntime


def _said(error: Exception) -> str:
    """What ONNX Runtime says, without its codes."""
    return one_line(error).rpartition("[ONNXRuntimeError] : ")[2][:300]


def _shape(sizes: Sequence[object]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in sizes)})"


def _nowhere(file: Path) -> str:
    """A folder that is not there: a file is in its place."""
    return str(file.absolute() / "nothing")
