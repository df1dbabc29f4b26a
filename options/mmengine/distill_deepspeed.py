# DeepSpeed's ZeRO (pip install deepspeed): optimiser states and gradients are shared out.
# It needs GPUs. Checkpoints are folders, which resume here, and only here.
#
#   torchrun --nproc-per-node 8 -m rainoerme_plugin train --engine mmengine --launcher pytorch \
#       -opt options/mmengine/distill_deepspeed.py
_base_ = "distill_fsdp.py"

strategy = dict(
    _delete_=True,
    type="DeepSpeedStrategy",
    zero_optimization=dict(stage=2),
    train_micro_batch_size_per_gpu=8,  # the data loader's batch_size
    config=dict(zero_allow_untested_optimizer=True),  # what mmengine has no argument for
)
optim_wrapper = dict(type="DeepSpeedOptimWrapper")
