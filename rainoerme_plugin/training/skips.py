"""Steps that are left out because their numbers went wrong: counted, told, and the end of a run when too many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.panels import panel, save_picture, show_rain
from ..errors import NonFiniteError
from ..processes import gather
from ..weights import save_checkpoint

PANEL_SIDE = 160


class Skips:
    """Counts the steps that were skipped.

    Args:
        limit: At most so many in a run.
        folder: Where the batches of one more are saved.
        warn: Is told of each.

    Attributes:
        count: So many there were.
    """

    def __init__(self, limit: int, folder: Path, warn: Callable[[str], None]) -> None:
        self.limit, self.folder, self.count = limit, folder, 0
        self._warn = warn

    def note(self, iteration: int, problem: str, batch: Mapping[str, Any], is_culprit: bool = True) -> None:
        """Take note of a step that was skipped, by all processes.

        Args:
            iteration: Its number.
            problem: Which tensor is not finite.
            batch: What it was computed of: images by name, and whatever tells where they are from.
            is_culprit: Whether it went wrong in this process, and not only in another one.

        Raises:
            NonFiniteError: It was one too many; the batches that went wrong are saved.
        """
        self.count += 1
        self._warn(f"iteration {iteration}: {problem}; the step is skipped ({self.count} so far, at most {self.limit})")
        if self.count <= self.limit:
            return
        for rank, found in enumerate(gather(dict(batch) if is_culprit else None)):
            if found is not None:
                self._save(self.folder / f"{iteration}_process_{rank}.pth", found)
        raise NonFiniteError(
            f"iteration {iteration}: {problem}. {self.count} steps went like that, more than train.nonfinite_limit "
            f"({self.limit}); the last batch is in {self.folder}. Take a lower train.optim_g.lr or another "
            "train.precision, or look for broken images, and go on from the last checkpoint with --auto_resume"
        )

    @staticmethod
    def _save(file: Path, batch: Mapping[str, Any]) -> None:
        kept = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in batch.items()}
        save_checkpoint(kept, file)
        images = [(name, value) for name, value in kept.items() if isinstance(value, Tensor) and value.ndim == 4]
        shown = {name: _as_image(name, value) for name, value in images}
        if len({value.shape for value in shown.values()}) == 1:
            count = max(map(len, shown.values()))
            save_picture(file.with_suffix(".png"), panel(shown, max_rows=count, min_width=PANEL_SIDE))


def _as_image(name: str, images: Tensor) -> Tensor:
    """Images as they can be looked at: floats in [0, 1], red where they are no numbers."""
    if images.dtype == torch.uint8:
        return images.float().div(255)
    seen = show_rain(images.float()) if name == "layer" else images.float()
    red = seen.new_tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    return torch.where(torch.isfinite(images).all(dim=1, keepdim=True), seen, red)
