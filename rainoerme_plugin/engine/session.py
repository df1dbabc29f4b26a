"""What BasicSR needs around a run: its options as it wants them, its models, a log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from ..archs.adapt import is_out_of_memory
from ..config import Request
from ..errors import OptionError, RainOerMeError, described
from ..progress import say
from ..training.opening import complete
from .mend import mend_basicsr


def begin(request: Request, *, training: bool) -> dict[str, Any]:
    """`complete`, and BasicSR's classes mended for what follows."""
    opt = complete(request, training=training)
    _take_over_logger()
    mend_basicsr()
    return opt


def build(opt: Mapping[str, Any]) -> Any:
    """The model, with its weights, while an earlier run of this name is still where it was.

    Raises:
        WeightsError: A checkpoint cannot be read, or is another network's.
        OptionError: The model or a network does not take its options, or the model not the network.
    """
    from basicsr.models import build_model

    try:
        return build_model(deepcopy(dict(opt)))  # BasicSR's models change theirs
    except RainOerMeError:
        raise
    except Exception as error:  # of any package's model or network
        if is_out_of_memory(error):
            raise
        raise OptionError(f"the model cannot be built: {described(error)}") from error


def brings_weights(network: Mapping[str, Any]) -> bool:
    """Whether a network's options name the file or folder that makes it what it is."""
    backbone = network.get("backbone")
    own = network.get("type") in ("PretrainedNet", "ResultImages") or bool(network.get("pretrained"))
    return own or (isinstance(backbone, Mapping) and brings_weights(backbone))


def _take_over_logger() -> logging.Logger:
    """BasicSR's logger with our console in place of its own; until the run's folder is there, it only warns."""
    from basicsr.utils import logger as stock

    logger = logging.getLogger("basicsr")
    stock.initialized_logger["basicsr"] = True
    logger.handlers = [_Console()]
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    return logger


@contextmanager
def holding_log(opt: Mapping[str, Any]) -> Iterator[list[logging.LogRecord]]:
    """Keep what is logged for `logging_to`: there is no folder for it yet."""
    records: list[logging.LogRecord] = []
    logger = _take_over_logger()
    logger.handlers = [_Holder(records)]
    logger.setLevel(logging.INFO if opt["rank"] == 0 else logging.ERROR)
    try:
        yield records
    finally:
        _take_over_logger()


@contextmanager
def logging_to(opt: Mapping[str, Any], kind: str, held: Sequence[logging.LogRecord] = ()) -> Iterator[logging.Logger]:
    """BasicSR's logger, writing to the run's folder and, in short, to standard error beside a progress bar.

    Args:
        opt: The run's options.
        kind: What the file's name begins with.
        held: What was logged before there was a folder.
    """
    from basicsr.utils import get_time_str

    logger = _take_over_logger()
    logger.setLevel(logging.INFO if opt["rank"] == 0 else logging.ERROR)
    if opt["rank"] == 0:
        file = _File(Path(opt["path"]["log"]) / f"{kind}_{opt['name']}_{get_time_str()}.log")
        logger.addHandler(file)
    for handler in logger.handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    for record in held:
        logger.handle(record)
    try:
        yield logger
    finally:
        for handler in logger.handlers:
            handler.close()
        _take_over_logger()


class _Holder(logging.Handler):
    """Keeps records in a list."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


class _File(logging.FileHandler):
    """A log file; where it can no longer be written, as on a full disk, training goes on and the console says so."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        say(f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}")
        self.setLevel(logging.CRITICAL + 1)

    def close(self) -> None:
        with suppress(OSError):  # what could not be written is tried once more
            super().close()


class _Console(logging.Handler):
    """Lines above the progress bar on a terminal, plain lines elsewhere; long reports stay in the log file."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "only_file", False):
            say(self.format(record))
