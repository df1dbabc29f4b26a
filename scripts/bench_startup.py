"""What `basicsr derain` of one small picture costs beside a plain script with the same network, a JSON line each.

    python scripts/bench_startup.py [--repeats N]

CPU seconds of whole processes, user and system, in turn. The plain script imports PyTorch and OpenCV (and spandrel, for
a network of spandrel's), reads, computes and writes, and does nothing else. Both must write the same picture.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from measure import emit, say, spread

from rainoerme_plugin import compat
from rainoerme_plugin.archs import rainoerme
from rainoerme_plugin.data.images import decode_image
from rainoerme_plugin.inference.opening import DEFAULT

SIDES = (96, 128)
"""Height and width of the picture."""
WHOLE = """
import cv2, numpy, torch
{load}
image = numpy.ascontiguousarray(cv2.imread("rainy.png")[..., ::-1].transpose(2, 0, 1), numpy.float32) / 255
with torch.inference_mode():
    derained = network(torch.from_numpy(image)[None])[0].clamp(0, 1)
cv2.imwrite("plain.png", (derained * 255).round().byte().permute(1, 2, 0).numpy()[..., ::-1])
"""
OWN = f"""
import safetensors.torch
from rainoerme import RainOerMeNet
network = RainOerMeNet().eval()
network.load_state_dict(safetensors.torch.load_file({str(DEFAULT)!r}))
"""
SPANDREL = """
import compat
compat.apply()  # torchvision, which spandrel imports, may be built for another PyTorch
import spandrel
network = spandrel.ModelLoader("cpu").load_from_file("nafnet.pth").eval()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="of every timing")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder)
        for name, load, weights in (("default", OWN, []), ("spandrel's NAFNet", SPANDREL, ["-w", "nafnet.pth"])):
            say(name)
            (folder / "plain.py").write_text(WHOLE.format(load=load))
            ours = [sys.executable, "-m", "rainoerme_plugin", "derain", "rainy.png", "-o", "out", "--overwrite"]
            ways = {"plain": [sys.executable, "plain.py"], "ours": [*ours, *weights]}
            taken: dict[str, list[float]] = {way: [] for way in ways}
            for count in range(1 + repeats):
                for way, command in ways.items():
                    seconds = cpu_seconds(command, folder)
                    if count:
                        taken[way].append(seconds)
            check_alike(folder)
            ratio = statistics.median(a / b for a, b in zip(taken["ours"], taken["plain"], strict=True))
            times = {way: spread(values) for way, values in taken.items()}
            emit("startup", torch.device("cpu"), network=name, size=SIDES, cpu_seconds=times, times_the_plain=ratio)


def make_inputs(folder: Path) -> None:
    """A picture, a small network of spandrel's, and what the plain scripts import from beside them."""
    compat.apply()
    from spandrel.architectures.NAFNet import NAFNet

    for module in (rainoerme, compat):
        assert module.__file__ is not None
        shutil.copy(module.__file__, folder)
    random = np.random.default_rng(0)
    cv2.imwrite(str(folder / "rainy.png"), random.integers(0, 256, (*SIDES, 3), dtype=np.uint8))
    torch.manual_seed(0)
    network = NAFNet(width=8, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1])
    torch.save(network.state_dict(), folder / "nafnet.pth")


def cpu_seconds(command: list[str], folder: Path) -> float:
    """User and system time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def check_alike(folder: Path) -> None:
    """Raise an error if the two ways have written different pictures."""
    plain, ours = (decode_image(folder / name).astype(int) for name in ("plain.png", "out/rainy.png"))
    if np.abs(plain - ours).max() > 1:  # in another memory format a value may round the other way
        raise SystemExit("the two ways give different pictures")


if __name__ == "__main__":
    main()
