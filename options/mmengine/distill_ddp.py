# Several processes, each with a batch of its own: nccl on GPUs, gloo on CPUs.
#
#   torchrun --nproc-per-node 8 -m rainoerme_plugin train --engine mmengine --launcher pytorch \
#       -opt options/mmengine/distill_ddp.py
_base_ = "distill.py"

# With all rain from plain places nothing goes through the detail enhancement block.
model_wrapper_cfg = dict(type="rainoerme_plugin.DistributedDistillation", find_unused_parameters=True)
