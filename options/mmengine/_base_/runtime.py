# What every run has: where classes are found, hooks, logs. Nothing here depends on the data or the machine.
custom_imports = dict(imports=["rainoerme_plugin.mm"])
default_scope = "rainoerme_plugin"  # names are looked up there first, then in mmengine
runner_type = "rainoerme_plugin.DistillationRunner"  # Runner, and gloo where several processes train on CPUs

randomness = dict(seed=0)
env_cfg = dict(cudnn_benchmark=True)
log_processor = dict(by_epoch=False, num_digits=6)
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")])

default_hooks = dict(
    logger=dict(type="LoggerHook", interval=100, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", interval=1000, by_epoch=False),
    # After the checkpoint, which then says the same as one of BasicSR's engine, and resumes there too.
    param_scheduler=dict(type="ParamSchedulerHook", priority="LOWEST"),
    schedule=dict(type="ScheduleHook"),  # tells the model what its two losses weigh
    ema=dict(type="EMAHook", ema_type="RampedEMA", decay=0.999),  # running mean of the weights, which is what is scored
    collapse_guard=dict(type="CollapseGuardHook", interval=100, patience=3, hard_loss=1e-3),  # ends a run that copies
    panels=dict(type="PanelHook", rows=4),  # crops and test images in all their stages, at every validation
    safe_checkpoint=dict(type="SafeCheckpointHook"),  # weights_only loads them; BasicSR's engine, basicsr derain too
)
