# Training without pairs: rainy photographs in datasets/rainy, clean photographs of other scenes in datasets/clean.
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    sampler=dict(type="EndlessSampler", batch_size=8),  # the same 8
    collate_fn=dict(type="rainoerme_plugin.collate_rain"),
    dataset=dict(
        type="UnpairedRainDataset",
        dataroot_rainy="datasets/rainy",
        dataroot_clean="datasets/clean",
        label=dict(type="streaks", window=[1, 9]),
        crop_size=128,
        source="files",
    ),
)

val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    # To look at; PairedRainDataset is scored as well.
    dataset=dict(type="SingleRainDataset", dataroot="datasets/rainy", limit=8),
)
val_cfg = dict(type="SeveralValLoop")
val_evaluator = [dict(type="DerainingMetric", protocol="matlab_y"), dict(type="DerainingMetric", protocol="basicsr_y")]
