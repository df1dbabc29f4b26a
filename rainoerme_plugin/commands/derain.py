"""Take the rain out of pictures, folders of them, and videos.

basicsr derain photo.jpg -o out            basicsr derain photographs/ film.mp4 -o out --compare page

Results keep name, format, bit depth, transparency and metadata of their input, and a folder's structure. What is there
already is left as it is: a run that was stopped goes on when it is started again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import add_device, add_weights

if TYPE_CHECKING:
    from ..inference.jobs import Wanted

FORMATS = ("png", "jpg", "webp", "tiff", "bmp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="pictures, videos, folders, patterns ('a/**/*.jpg')")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    weights_help = (
        "a training run's folder, a checkpoint of this package or of a network that it or spandrel knows, or an ONNX "
        "file (default: the network that comes with the package)"
    )
    add_weights(parser, weights_help)
    parser.add_argument("--overwrite", action="store_true", help="make results anew that are there already")

    more = parser.add_argument_group("more results")
    compare_help = (
        "before and after: one page with a slider (page, the default), or a picture beside each result (side)"
    )
    more.add_argument("--compare", nargs="?", choices=("page", "side"), const="page", help=compare_help)
    more.add_argument("--rain", action="store_true", help="also the rain layer of each picture, as NAME.rain.png")

    files = parser.add_argument_group("pictures' files")
    files.add_argument("--format", choices=FORMATS, help="of the results (default: that of the input)")
    quality_help = "of JPEG and lossy WebP, 1 to 100 (default: that of the input, else 95)"
    files.add_argument("--quality", type=int, metavar="Q", help=quality_help)

    video = parser.add_argument_group("videos")
    blend_help = "mix each frame with its neighbours where they are alike, against flicker: 0 (off) to 1"
    video.add_argument("--blend", type=float, default=0.0, metavar="B", help=blend_help)
    video.add_argument("--crf", type=int, metavar="N", help="the encoder's constant rate factor: less is better")

    computing = parser.add_argument_group("computing")
    add_device(computing)
    computing.add_argument("--half", action="store_true", help="half precision: float16, and bfloat16 on a CPU")
    tile_help = "cut pictures into tiles of N pixels a side; 0: never (default: large ones, if that changes nothing)"
    computing.add_argument("--tile", type=int, metavar="N", help=tile_help)
    batch_help = "pictures of one size, frames or tiles that go through the network at a time"
    computing.add_argument("--batch", type=int, metavar="N", help=batch_help)


def run(arguments: argparse.Namespace) -> int:
    from ..devices import bound_memory
    from ..inference.derainer import load_derainer
    from ..inference.jobs import find_jobs
    from ..inference.run import derain_files
    from ..progress import reached, say, track

    wanted = _wanted(arguments)
    jobs = find_jobs(arguments.inputs, arguments.output, wanted, say)
    derainer = load_derainer(
        arguments.weights,
        key=arguments.key,
        iteration=arguments.iteration,
        device=arguments.device,
        tile=arguments.tile,
        batch=arguments.batch,
        half=arguments.half,
    )
    if derainer.device.type == "cpu":
        bound_memory()
    print(f"{derainer.opened.about}, on {derainer.device}")
    outcome = derain_files(jobs, derainer, wanted, track, reached)
    skipped = f", {outcome.skipped} were there already (--overwrite makes them anew)" if outcome.skipped else ""
    print(f"{outcome.done} of {len(jobs)} derained into {arguments.output}{skipped}")
    if outcome.page is not None:
        print(outcome.page)
    for note in outcome.notes:
        say(note)
    for what, (first, *others) in outcome.left_out.items():
        say(f"{first}{f' and {len(others)} more' if others else ''}: not in the result: {what}")
    for source, reason in outcome.failed:
        say(f"basicsr derain: error: {source}: {reason}")
    return 2 if outcome.failed else 0


def _wanted(arguments: argparse.Namespace) -> Wanted:
    from ..errors import OptionError
    from ..files import user_path
    from ..inference.jobs import Wanted
    from ..inference.video import VideoOptions

    if arguments.quality is not None and not 1 <= arguments.quality <= 100:
        raise OptionError(f"--quality must be 1 to 100, got {arguments.quality}")
    return Wanted(
        kind=arguments.format,
        quality=arguments.quality,
        rain=arguments.rain,
        side=arguments.compare == "side",
        page=user_path(arguments.output) / "compare.html" if arguments.compare == "page" else None,
        overwrite=arguments.overwrite,
        video=VideoOptions(batch=arguments.batch or 1, blend=arguments.blend, quality=arguments.crf),
    )
