# As options/distill_labels.yml: two-stage distillation by soft labels, with the paper's network.
_base_ = ["_base_/runtime.py", "_base_/distillation.py", "_base_/photographs.py"]
