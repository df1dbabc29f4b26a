# Train a derainer from photographs without pairs, on one GPU if there is one:
#
#   basicsr train --engine mmengine -opt options/mmengine/distill.py
#
# Any training script of OpenMMLab's runs it as it is: Runner.from_cfg(Config.fromfile(FILE)).train()
# As options/distill.yml, whose comments say what each key means: rain from plain places, and a small U-shaped network.
_base_ = "distill_labels.py"

train_dataloader = dict(dataset=dict(rain=dict(type="plain")))
model = dict(
    network=dict(
        _delete_=True,
        type="DistillationNet",
        backbone=dict(
            type="DerainUNet", channels=32, encoder=[2, 2], middle=2, decoder=[2, 1], shrink=2, attention=True
        ),
    ),
    distillation=dict(rain=dict(strength=[0.7, 1.5], none=0.1, grey=True, bank=1)),
    grad_clip=0.3,
)
optim_wrapper = dict(optimizer=dict(lr=3e-3, betas=(0.9, 0.99)))
param_scheduler = dict(warmup_iter=200)
