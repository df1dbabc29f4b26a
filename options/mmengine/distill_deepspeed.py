# DeepSpeed's ZeRO: optimiser states and gradients are shared out. It needs GPUs, and pip install 'deepspeed<0.19'
# (mmengine 0.10.7 imports what later ones have not). Checkpoints are folders, which resume here and only here; the
# network alone lies beside each, as network_N.pth.
#
#   torchrun --nproc-per-node 8 -m rainoerme_plugin train --engine mmengine --launcher pytorch \
#       -opt options/mmengine/distill_deepspeed.py
_base_ = "distill_fsdp.py"

strategy = dict(
    _delete_=True,
    type="DeepSpeedStrategy",
    zero_optimization=dict(stage=2),
    train_micro_batch_size_per_gpu=8,  # the data loader's batch_size
)
optim_wrapper = dict(type="DeepSpeedOptimWrapper")
default_hooks = dict(safe_checkpoint=dict(network_every=1000))
