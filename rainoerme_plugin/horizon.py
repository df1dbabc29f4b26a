"""What a run is too short for: options of which it makes nothing, told at its start."""

from __future__ import annotations

from collections.abc import Mapping

from .data.order import late_start
from .options import BackboneOptions, DistillationOptions, GuardOptions

_AT_THE_END = {
    "val.val_freq": "it is validated once, at the end",
    "logger.save_checkpoint_freq": "the only checkpoint is the last one, and a run that is killed begins anew",
    "logger.print_freq": "no losses are logged",
}


def of_no_use(
    total: int,
    warmup_iter: int = -1,
    every: Mapping[str, int | None] | None = None,
    distillation: DistillationOptions | None = None,
    backbone: BackboneOptions | None = None,
    guard: GuardOptions | None = None,
    patience: int | None = None,
    late_from: float | None = None,
) -> list[str]:
    """What of these options a run of so many iterations makes nothing of, a line each.

    (The running mean is none: its memory grows with the run, `ramped_decay`.)

    Args:
        total: ``train.total_iter``.
        warmup_iter, distillation, backbone, guard: Of ``train``.
        patience: ``val.best.patience``.
        every: ``val.val_freq``, ``logger.save_checkpoint_freq`` and ``logger.print_freq``, as far as they are known.
        late_from: ``datasets.train.late_from``, if there is a ``late_crop_size``.
    """
    found = []
    if warmup_iter > total:
        found.append(f"train.warmup_iter: the full learning rate is not reached in {warmup_iter} iterations")
    for key, number in (every or {}).items():
        if number is not None and number > total:
            found.append(f"{key}: {int(number)} is more than the run has: {_AT_THE_END[key]}")
    val_freq = (every or {}).get("val.val_freq")
    if patience is not None and val_freq is not None and val_freq <= total <= (patience + 1) * val_freq:
        needed = f"{patience + 1} times {int(val_freq)} iterations"
        found.append(f"val.best.patience: never ends the run early: that takes {needed} at least")
    if late_from is not None and late_start(late_from, total) == total:
        found.append("datasets.train.late_from: crops never become those of late_crop_size")
    if late_from is not None and late_start(late_from, total) == 0:
        found.append("datasets.train.late_from: crop_size is not used: all crops are of late_crop_size")
    warmup = 0
    if distillation is not None:
        warmup = distillation.build().warmup
        found += _of_distillation(total, distillation)
    if backbone is not None and backbone.lr_factor > 0 and backbone.freeze_iter >= total:
        found.append(f"train.backbone.freeze_iter: the backbone is frozen for {backbone.freeze_iter} iterations")
    if guard is not None and guard.enabled and 0 < total - warmup < guard.interval * guard.patience:
        needed = f"{guard.patience} times {guard.interval} iterations after the warm-up of {warmup}"
        found.append(f"train.collapse_guard: notices nothing: it goes by {needed}")
    return [f"{line} (train.total_iter: {total})" for line in found]


def _of_distillation(total: int, options: DistillationOptions) -> list[str]:
    key, schedule, teacher = "train.distillation", options.build(), options.refinements().teacher
    rest = total - schedule.warmup
    if rest <= 0:
        return [f"{key}.warmup: the second stage never begins, nor does anything of {key} that counts from there"]
    found = []
    if schedule.gain_range != (0, 0) and schedule.gain_start >= rest:
        found.append(f"{key}.gain_start: the gain never varies, being 1 for {schedule.gain_start} iterations")
    if 0 < schedule.soft_min < schedule.soft_decay / (rest + schedule.soft_decay):
        found.append(f"{key}.soft_min: the soft weight does not fall to {schedule.soft_min}")
    if teacher.rain and teacher.start >= total:
        found.append(f"{key}.teacher.start: the rain is the student's to the end")
    if teacher.label_weight > 0 and teacher.label_start >= total:
        found.append(f"{key}.teacher.label_start: the teacher has no share in the labels")
    if options.adversarial.weight > 0 and options.adversarial.start >= total:
        found.append(f"{key}.adversarial.start: there is no adversarial loss to the end")
    return found
