"""Scoring a network on test sets, for every BasicSR model and option file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..archs.adapt import is_out_of_memory
from ..archs.result_images import ResultImages, check_apart
from ..config import Request
from ..data.paired import PairedRain, SingleRain
from ..errors import DataError, OptionError, RainOerMeError, counted
from ..processes import claimed, leave_processes, losses_told
from ..training.opening import open_folder, settle_seed
from .loaders import build_dataset
from .session import begin, brings_weights, build, holding_log, logging_to
from .validating import open_test_set


@dataclass(frozen=True)
class Score:
    """One data set's figures, none without ground truth; ``rainy`` is the input's, where the model gives them."""

    dataset: str
    images: int
    derained: dict[str, float]
    rainy: dict[str, float]


def test(request: Request) -> tuple[list[Score], dict[str, Any]]:
    """Run the network of an option file over its test sets.

    Returns:
        The scores, and the completed options; ``path.visualization`` is where the pictures are.

    Raises:
        RainOerMeError: What the user can mend, on one line.
    """
    opt = begin(request, training=False)
    if opt.get("val") is None:
        raise OptionError(f"{request.option_file}: val: is missing; it says what to measure and whether to save images")
    if "network_g" in opt and not opt["path"].get("pretrain_network_g") and not brings_weights(opt["network_g"]):
        raise OptionError("path.pretrain_network_g: is missing; it names the checkpoint to test")
    with losses_told(opt["rank"], opt["world_size"]), claimed(Path(opt["path"]["log"])):
        scores = _test(opt)
        leave_processes()
    return scores, opt


def _test(opt: dict[str, Any]) -> list[Score]:
    settle_seed(opt)
    from basicsr.data import build_dataloader

    sets = []
    for dataset_opt in opt["datasets"].values():
        if dataset_opt["phase"] == "train":
            continue
        dataset_opt["phase"] = "test"
        loader = build_dataloader(build_dataset(dataset_opt), dataset_opt, num_gpu=opt["num_gpu"])
        sets.append(open_test_set(loader, opt["val"]))
    if not sets:
        raise OptionError("datasets: names no test set (test..., val...)")
    with holding_log(opt) as held:
        model = build(opt)
    _check_result_images(getattr(model, "net_g", None), {each.name: each.loader.dataset for each in sets})
    open_folder(opt, keep=False)
    with logging_to(opt, "test", held) as logger:
        for warning in opt["warnings"]:
            logger.warning(warning)
        for note in (note for each in sets for note in each.notes):
            logger.info(note)
        scores = []
        for each in sets:
            count = len(each.loader.dataset)  # type: ignore[arg-type]
            logger.info(f"Testing {each.name}, {counted(count, 'image')}, on {opt['device']}")
            try:
                each.validate(model, opt["name"], None, bool(opt["val"]["save_img"]))
            except Exception as error:
                if is_out_of_memory(error):
                    raise RainOerMeError(
                        f"out of memory on {opt['device']}, with the images of {each.name}; give val.tile a smaller "
                        "number"
                    ) from error
                raise
            rainy = getattr(model, "input_metrics", {}).get(each.name, {})
            scores.append(Score(each.name, count, dict(getattr(model, "metric_results", {})), rainy))
    return scores


def _check_result_images(network: Any, datasets: Mapping[str, Any]) -> None:
    """Refuse a folder of result images that would be scored on several test sets (`check_apart`)."""
    if not isinstance(network, ResultImages):
        return

    def results() -> Iterator[tuple[str, Path, Callable[[], bytes]]]:
        for phase, dataset in datasets.items():
            for name, read in _rainy_files(dataset):
                with suppress(DataError):  # missing: told when it is scored
                    yield phase, network.find(name), read

    check_apart(results(), "test each data set by itself, with network_g.folder naming its own results")


def _rainy_files(dataset: Any) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The names of a test set's rainy images, and what reads their files."""
    if isinstance(dataset, PairedRain):
        for pair in dataset.pairing.pairs:
            yield str(pair.rainy), partial(lambda found: next(found.encoded()), pair)
    elif isinstance(dataset, SingleRain):
        for index, name in enumerate(dataset.rainy.names):
            yield name, partial(dataset.rainy.encoded, index)
