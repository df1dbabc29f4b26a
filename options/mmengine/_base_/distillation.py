# The method, as options/distill.yml has it: its comments say what each key means.
model = dict(
    type="DistillationModel",
    network=dict(type="RainOerMeNet", channels=16, detail_layers=3, start="kaiming"),
    loss=dict(
        type="SumLoss",
        losses=[
            dict(type="SSIMLoss", loss_weight=1.0, window=11, sigma=1.5, data_range=1.0),
            dict(type="CharbonnierLoss", loss_weight=1.0),
        ],
    ),
    distillation=dict(
        preset="rain200l",
        warmup=100,
        rain_share=0.3,
        rain=dict(move=True, flip=True, turn=10, strength=[0.8, 2.4], size=[0.8, 1.4], two=0.3),
    ),
    precision="float32",  # bfloat16: on CPUs, too; float16: on GPUs without bfloat16
    accumulation=1,  # parts that a batch is gone through in
    nonfinite_limit=10,
    tile="auto",
)

optim_wrapper = dict(
    constructor="OptionOptimWrapper",  # groups and settings as under BasicSR
    optimizer=dict(type="Adam", lr=5e-4, betas=(0.5, 0.999)),
)
param_scheduler = dict(type="OptionSchedule", by_epoch=False, scheduler=dict(type="LinearDecayLR"))
train_cfg = dict(type="EndlessTrainLoop", max_iters=20000, val_interval=1000)
