"""TensorBoard's event file: worth having, but no reason for a training to end when it cannot be written."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any


class Board:
    """BasicSR's ``SummaryWriter``; where its file cannot be written, as on a full disk, it says so once and gives up.

    Args:
        opt: The completed options.
        logger: Where it says so.
    """

    def __init__(self, opt: Mapping[str, Any], logger: logging.Logger) -> None:
        from basicsr.train import init_tb_loggers

        self._logger, self._writer = logger, None
        self._before = threading.excepthook
        threading.excepthook = self._silence
        try:
            self._writer = init_tb_loggers(opt)
        except OSError as error:
            self._give_up(error)

    def __bool__(self) -> bool:
        return self._writer is not None

    def __getattr__(self, name: str) -> Callable[..., None]:
        """What the writer has under this name, ``add_scalar`` or ``add_image``."""

        def add(*arguments: Any, **options: Any) -> None:
            if self._writer is not None:
                try:
                    getattr(self._writer, name)(*arguments, **options)
                except OSError as error:
                    self._give_up(error)

        return add

    def close(self) -> None:
        """Write what is still to be written."""
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            self._give_up(error)
        finally:
            threading.excepthook = self._before

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        self._logger.warning(f"TensorBoard's file cannot be written ({error.strerror or error}); going on without")

    def _silence(self, failed: threading.ExceptHookArgs) -> None:
        """The thread that writes tells its error twice: whoever calls the writer next gets it, too."""
        from_writer = type(failed.thread).__module__.startswith("tensorboard.")
        if not (from_writer and isinstance(failed.exc_value, OSError)):
            self._before(failed)
