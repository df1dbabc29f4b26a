"""Validation of derainers: whole images, figures beside those of the rainy ones, pictures to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from ..archs.catalogue import needs_of
from ..archs.result_images import ResultImages
from ..archs.tiles import derain_tiled
from ..data.images import RGB, to_image
from ..data.names import result_path, results_of
from ..data.panels import PANEL_ROWS, derained_path, panel, picture_of, save_picture
from ..errors import counted
from ..processes import control_group
from ..progress import bar
from ..registered.metrics import Figures, mean, naming, possible_without, score
from .shared import buffers_of_first, from_first, is_first, shared_out


@dataclass(frozen=True)
class Outcome:
    """What became of one test image: ``figures`` if any can be taken, the pictures that are to be saved."""

    name: str
    figures: Figures | None
    derained: RGB | None
    panel: RGB | None


class DerainingModel(SRModel):
    """BasicSR's model of one network, with a validation for derainers that several processes share out."""

    net_g: nn.Module

    def __init__(self, opt: dict[str, Any]) -> None:
        self.input_metrics: dict[str, dict[str, float]] = {}
        self._shown: Mapping[str, Tensor] | None = None
        super().__init__(opt)

    def model_to_device(self, net: nn.Module) -> nn.Module:
        # DDP refuses a network without anything to train, such as a folder of images.
        if not any(parameter.requires_grad for parameter in net.parameters()):
            return net.to(self.device)
        return super().model_to_device(net)

    @property
    def _tested(self) -> nn.Module:
        return getattr(self, "net_g_ema", self.net_g)

    @torch.no_grad()
    def test(self) -> None:
        network = self._tested
        training = network.training
        network.eval()
        bare = self.get_bare_model(network)
        if isinstance(bare, ResultImages):
            self.output = bare(self.lq, self.names)
        else:
            tile = (self.opt.get("val") or {}).get("tile", "auto")
            self.output = derain_tiled(
                bare,
                self.lq,
                needs_of(bare),
                tile=None if tile == "auto" else tile,
                tell=get_root_logger().warning,
            )
        network.train(training)

    def nondist_validation(self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        """Derain a test set: metrics of the derained images beside those of the rainy ones, and panels to look at.

        Images, with ``save_img``: every derained image under ``visualization/<data set>``. In training also
        ``visualization/panels``: crops of the last logged batch in all their stages, and the first test images.
        """
        self._validate(dataloader, current_iter, tb_logger, save_img, None)

    def dist_validation(self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        """`nondist_validation` by all processes together; the first one writes, and all know the figures."""
        self._validate(dataloader, current_iter, tb_logger, save_img, control_group())

    def _validate(
        self,
        dataloader: Any,
        current_iter: int | str,
        tb_logger: Any,
        save_img: bool,
        group: ProcessGroup | None,
    ) -> None:
        dataset, asked = dataloader.dataset, self.opt["val"]
        name, metrics, panels = dataset.opt["name"], asked.get("metrics") or {}, asked.get("panels", True)
        known = name in self.input_metrics

        def examine(index: int) -> Outcome:
            # A DataLoader's iterator would draw a seed for its workers from the generator that training draws from.
            data = dataloader.collate_fn([dataset[index]])
            self.feed_data(data)
            self.names = data["lq_path"]
            self.test()
            derained = to_image(self.output[0], asked.get("rounding", "round"))
            figures, clean = None, self.gt if "gt" in data else None
            if possible_without(clean is not None, metrics):
                rainy, wanted = to_image(self.lq[0]), None if clean is None else to_image(clean[0])
                with naming(data["lq_path"][0]):
                    figures = Figures(score(derained, wanted, metrics), {} if known else score(rainy, wanted, metrics))
            picture = picture_of(self.lq, self.output, clean) if panels and index < PANEL_ROWS else None
            return Outcome(results_of(data)[0], figures, derained if save_img else None, picture)

        first, count = is_first(group), len(dataset)
        figures: list[Figures] = []
        shown = first and asked.get("pbar", True)
        with (
            buffers_of_first(self._tested, group),
            bar(count, f"Derain {name}", shown=shown, unit="image", leave=False) as images,
        ):
            for outcome in shared_out(examine, count, group):
                images.update()
                if outcome.figures is not None:
                    figures.append(outcome.figures)
                if outcome.derained is not None:
                    self._save_image(outcome.derained, name, outcome.name, current_iter)
                if outcome.panel is not None:
                    self._save_panel(outcome.panel, f"{name}/{outcome.name}", current_iter)
        means = from_first(mean(figures), group)
        if means is not None:
            self.metric_results = means.derained
            self.input_metrics.setdefault(name, means.rainy)
            self._initialize_best_metric_results(name)
            for metric, value in means.derained.items():
                self._update_best_metric_result(name, metric, value, current_iter)
            if first:
                self._report(current_iter, name, len(figures), tb_logger)
        if first and panels and self.is_train and self._shown is not None:
            picture = panel(self._shown, min_width=160)
            self._save_panel(picture, "training", current_iter)
            if tb_logger:
                tb_logger.add_image("panels/training", picture, current_iter, dataformats="HWC")

    def _report(self, current_iter: int | str, name: str, count: int, tb_logger: Any) -> None:
        lines = [f"Validation {name}, {counted(count, 'image')}"]
        for metric, value in self.metric_results.items():
            line = f"\t # {metric}: {value:.4f}\tRainy: {self.input_metrics[name][metric]:.4f}"
            if self.is_train:
                best = self.best_metric_results[name][metric]
                line += f"\tBest: {best['val']:.4f} @ {best['iter']} iter"
            lines.append(line)
            if tb_logger:
                tb_logger.add_scalar(f"metrics/{name}/{metric}", value, current_iter)
        get_root_logger().info("\n".join(lines))

    def _save_image(self, image: RGB, dataset: str, name: str, current_iter: int | str) -> None:
        folder = Path(self.opt["path"]["visualization"])
        if self.is_train:
            sets = [each for each in self.opt.get("datasets", {}).values() if each.get("phase") == "val"]
            path = derained_path(folder, name, current_iter, dataset if len(sets) > 1 else None)
        else:
            suffix = self.opt["val"].get("suffix")
            path = result_path(folder / dataset, name, f"_{suffix}.png" if suffix else ".png")
        save_picture(path, image)

    def _save_panel(self, picture: RGB, title: str, current_iter: int | str) -> None:
        ending = f"_{current_iter}.png" if self.is_train else ".png"
        save_picture(result_path(Path(self.opt["path"]["visualization"]) / "panels", title, ending), picture)
