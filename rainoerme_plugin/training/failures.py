"""What ends a run from within another package's code, as one line for the user."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ..archs.adapt import is_out_of_memory
from ..errors import RainOerMeError, described
from ..processes import has_joined, is_loss


@contextmanager
def telling(where: str, logger: logging.Logger | None = None) -> Iterator[None]:
    """Tell errors of models, losses, metrics and optimisers of any package in one line.

    Args:
        where: What is being done.
        logger: What gets all of such an error, for its file alone.

    Raises:
        RainOerMeError: One was raised that is not for the user as it is.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RainOerMeError | OSError | MemoryError) or is_out_of_memory(error):
            raise
        if has_joined() and is_loss(error):
            raise
        if logger is not None:
            logger.error(f"{where}:", exc_info=error, extra={"only_file": True})
        more = "" if logger is None else "; the log file says where in the code"
        raise RainOerMeError(f"{where}: {described(error)}{more}") from error
