"""What ends a run from within another package's code, as one line for the user."""

from __future__ import annotations

import logging

from ..archs.adapt import is_out_of_memory
from ..errors import RainOerMeError, described
from ..processes import is_loss


def told(error: Exception, where: str, logger: logging.Logger | None = None) -> Exception:
    """An error as the user is told it: itself, where it is known what to say, and else a `RainOerMeError`.

    Args:
        error: Of a model, loss, metric or optimiser.
        where: What was being done.
        logger: What gets all of an error that is not known, for its file alone.
    """
    if isinstance(error, RainOerMeError | OSError | MemoryError) or is_out_of_memory(error) or is_loss(error):
        return error
    if logger is not None:
        logger.error(f"{where}:", exc_info=error, extra={"only_file": True})
    more = "" if logger is None else "; the log file says where in the code"
    return RainOerMeError(f"{where}: {described(error)}{more}")
