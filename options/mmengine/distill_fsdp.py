# Networks too large for one GPU, by PyTorch's FSDP: weights, gradients and optimiser states are shared out.
# It needs GPUs. FlexibleRunner takes model and optimiser apart: mmengine's own schedule, no running mean.
#
#   torchrun --nproc-per-node 8 -m rainoerme_plugin train --engine mmengine --launcher pytorch \
#       -opt options/mmengine/distill_fsdp.py
_base_ = "distill_labels.py"

runner_type = "FlexibleRunner"
strategy = dict(
    type="FSDPStrategy",
    model_wrapper=dict(
        type="MMFullyShardedDataParallel",
        # Parts of more than a million parameters are shared out on their own; the paper's network has 55,046.
        auto_wrap_policy=dict(type="torch.distributed.fsdp.wrap.size_based_auto_wrap_policy", min_num_params=10**6),
    ),
    state_dict_cfg="full",
)

# Processes take turns in gathering the weights, so all must derain as many tiles: whole images.
model = dict(tile=0)
optim_wrapper = dict(_delete_=True, type="OptimWrapper", optimizer=dict(type="Adam", lr=5e-4, betas=(0.5, 0.999)))
param_scheduler = dict(_delete_=True, type="LinearDecay", by_epoch=False)
default_hooks = dict(
    _delete_=True,
    logger=dict(type="LoggerHook", interval=100, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", interval=1000, by_epoch=False),
    schedule=dict(type="ScheduleHook"),
    collapse_guard=dict(type="CollapseGuardHook", interval=100, patience=3, hard_loss=1e-3),
    panels=dict(type="PanelHook", rows=4),
    safe_checkpoint=dict(type="SafeCheckpointHook"),
)
