# As options/distill_cpu.yml: without a GPU, small crops, twenty minutes on two cores.
_base_ = "distill.py"

train_dataloader = dict(num_workers=0, dataset=dict(crop_size=64, source="memory"))
train_cfg = dict(max_iters=7000, val_interval=500)
default_hooks = dict(ema=dict(decay=0.998), checkpoint=dict(interval=500))
