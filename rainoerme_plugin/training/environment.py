"""What decides about the last digits of a run besides its options: kept in checkpoints, told where it has changed."""

from __future__ import annotations

import os
from collections.abc import Mapping

import cv2
import numpy as np
import PIL
import torch

from ..devices import device_name
from ..errors import brief
from ..processes import rank_and_world

_SETTINGS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE")
"""Variables by which libraries choose how they compute."""


def environment(device: torch.device) -> dict[str, str | int | bool]:
    """Numbers of threads and processes, device, versions, and settings of how floats are computed with.

    Args:
        device: What the run computes on.
    """
    found: dict[str, str | int | bool] = {
        "threads": torch.get_num_threads(),
        "processes": rank_and_world()[1],
        "device": f"{device.type}: {device_name(device)}",
        "PyTorch": str(torch.__version__),
        "NumPy": np.__version__,
        "OpenCV": cv2.__version__,
        "Pillow": PIL.__version__,
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }
    if device.type == "cpu":
        found["instructions"] = torch.backends.cpu.get_cpu_capability()
        found["oneDNN"] = torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()
    elif device.type == "cuda":
        found["cuDNN"] = str(torch.backends.cudnn.version())
        found["cuDNN enabled"] = torch.backends.cudnn.enabled
        found["cuDNN deterministic"] = torch.backends.cudnn.deterministic
        found["TF32 in convolutions"] = torch.backends.cudnn.allow_tf32
    return found | {name: os.environ[name] for name in _SETTINGS if name in os.environ}


def changed_environment(before: Mapping[str, object], now: Mapping[str, object]) -> str | None:
    """What is to be told of a checkpoint that was made elsewhere, with old and new; None where all is as it was.

    Args:
        before: Of the checkpoint; empty where it holds none, of which nothing is told.
        now: Of this run.
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)] if before else []
    if not names:
        return None
    changes = "; ".join(f"{name}: {_told(before.get(name))} -> {_told(now.get(name))}" for name in names)
    return f"the checkpoint was made with other {changes}. From here on digits may differ from a run without a break"


def _told(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() and len(value) < 120 else brief(value)
