# As options/distill_cpu.yml: without a GPU, small crops, twenty minutes on two cores.
_base_ = "distill.py"

train_dataloader = dict(num_workers=0, dataset=dict(crop_size=64, source="memory"))
train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=1000))
