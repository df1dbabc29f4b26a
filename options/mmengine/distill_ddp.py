# Several processes, each with a batch of its own: nccl on GPUs, gloo on CPUs.
#
#   torchrun --nproc-per-node 8 -m rainoerme_plugin train --engine mmengine --launcher pytorch \
#       -opt options/mmengine/distill_ddp.py
_base_ = "distill.py"

model_wrapper_cfg = dict(type="rainoerme_plugin.DistributedDistillation")
