"""Choosing a device, and the bound on its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from rainoerme_plugin.devices import pick_device
from rainoerme_plugin.errors import OptionError


def test_cpu_is_always_there() -> None:
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_with_a_remedy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(OptionError, match=f"--device {name}: .* use --device auto or cpu"):
        pick_device(name)
    assert pick_device("auto") == torch.device("cpu")


def test_an_allocation_beyond_free_memory_fails_and_the_process_lives() -> None:
    program = (
        "import sys, torch\n"
        "from rainoerme_plugin.devices import bound_memory\n"
        "bound = bound_memory()\n"
        "print('no bound' if bound is None else 'bound')\n"
        "if bound is not None:\n"
        "    torch.zeros(2**20)\n"
        "    try:\n"
        "        torch.empty(bound, dtype=torch.uint8)\n"
        "    except RuntimeError as error:\n"
        "        print('memory' in str(error))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    if run.stdout == "no bound\n":
        pytest.skip("this system does not tell how much memory is free")
    assert (run.returncode, run.stdout) == (0, "bound\nTrue\n"), run.stderr
