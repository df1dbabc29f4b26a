# The demo (basicsr prepare demo): photographs that scikit-image ships, with rendered rain, on a CPU in some minutes.
# It scores the pairs that the demo is tested on, which are in no training image.
_base_ = "distill_labels_cpu.py"

train_dataloader = dict(
    dataset=dict(
        dataroot_rainy="datasets/demo/rainy",
        dataroot_clean="datasets/demo/clean",
        label=dict(type="opening", window=[1, 5]),
    )
)
val_dataloader = dict(dataset=dict(_delete_=True, type="PairedRainDataset", dataroot="datasets/demo/test"))
model = dict(
    network=dict(start="noise"),
    loss=dict(_delete_=True, type="SSIMLoss"),
    distillation=dict(
        warmup=300, rain_share=0, rain=dict(move=False, flip=False, turn=0, strength=[1, 1], size=[1, 1], two=0)
    ),
)
train_cfg = dict(max_iters=1200, val_interval=600)
default_hooks = dict(ema=dict(decay=0.99), checkpoint=dict(interval=300))
