"""How fast a video is derained, and how long the network waits for decoding and encoding. One JSON line.

    python scripts/bench_video.py [--frames 300] [--device auto|cpu|cuda] [--weights FILE] [--batch N] [--half]

The video is made for it: 1280x720, 25 frames a second, H.264 with AAC, a texture that moves under rendered rain. Number
of frames, their times and the bytes of the sound are checked afterwards.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from measure import emit, say

from rainoerme_plugin.data.demo import render_rain
from rainoerme_plugin.data.images import RGB
from rainoerme_plugin.inference.derainer import load_derainer
from rainoerme_plugin.inference.video import VideoOptions, derain_video

HEIGHT, WIDTH, RATE, SAMPLES = 720, 1280, 25, 48000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda ...")
    parser.add_argument("--weights", help="default: the network that comes with the package")
    parser.add_argument("--batch", type=int, default=1, help="frames through the network at a time")
    parser.add_argument("--blend", type=float, default=0.0, help="0 (off) to 1")
    parser.add_argument("--half", action="store_true", help="half precision")
    arguments = parser.parse_args()
    derainer = load_derainer(arguments.weights, device=arguments.device, batch=arguments.batch, half=arguments.half)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "rainy.mp4"), Path(folder, "derained.mp4")
        begun = time.perf_counter()
        make_video(source, arguments.frames)
        say(f"{arguments.frames} frames made in {time.perf_counter() - begun:.0f} s")
        if derainer.device.type == "cuda":  # choosing kernels is no part of a long video's time
            derainer.many([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * arguments.batch)
        report = derain_video(source, target, derainer.many, VideoOptions(arguments.batch, arguments.blend))
        before, after = contents(source), contents(target)
        if after != before or report.frames != arguments.frames:
            raise SystemExit("frames, their times or the sound are not those of the source")
        emit(
            "video",
            torch.device(derainer.device),
            network=derainer.opened.about,
            frames=report.frames,
            batch=arguments.batch,
            blend=arguments.blend,
            half=arguments.half,
            seconds=report.seconds,
            frames_per_second=report.frames / report.seconds,
            waiting_share=report.waited / (report.waited + report.network),
        )


def make_video(path: Path, frames: int) -> None:
    """A rainy video with sound."""
    random = np.random.default_rng(0)
    # Noise in several sizes: it has detail everywhere, like leaves.
    texture = sum(
        np.repeat(np.repeat(random.integers(0, 64, (1440 // size, 1920 // size, 3)), size, 0), size, 1)
        for size in (4, 16, 80)
    )
    clean = np.asarray(texture, np.uint8)
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=RATE, options={"crf": "20", "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound: Any = output.add_stream("aac", rate=SAMPLES)
        for number in range(frames):
            y, x = number % (1440 - HEIGHT), 2 * number % (1920 - WIDTH)
            image: RGB = np.ascontiguousarray(clean[y : y + HEIGHT, x : x + WIDTH])
            frame = av.VideoFrame.from_ndarray(render_rain(image, random), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(video.encode(frame))
            start = SAMPLES * number // RATE
            wave = np.sin(np.arange(start, SAMPLES * (number + 1) // RATE) * (2 * np.pi * 440 / SAMPLES)) / 4
            chunk = av.AudioFrame.from_ndarray(
                np.stack([wave, wave]).astype(np.float32), format="fltp", layout="stereo"
            )
            chunk.sample_rate, chunk.pts, chunk.time_base = SAMPLES, start, Fraction(1, SAMPLES)
            output.mux(sound.encode(chunk))
        output.mux(video.encode(None))
        output.mux(sound.encode(None))


def contents(path: Path) -> tuple[list[Fraction], str]:
    """The frames' times in seconds, and the checksum of the sound's packets with their times."""
    digest = hashlib.sha256()
    times = []
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is None or packet.time_base is None:
                continue
            moment = packet.pts * packet.time_base
            if packet.stream.type == "video":
                times.append(moment)
            else:
                digest.update(f"{moment}".encode() + bytes(packet))
    return sorted(times), digest.hexdigest()


if __name__ == "__main__":
    main()
