# Train a derainer from photographs without pairs, on one GPU if there is one:
#
#   basicsr train --engine mmengine -opt options/mmengine/distill.py
#
# Any training script of OpenMMLab's runs it as it is: Runner.from_cfg(Config.fromfile(FILE)).train()
_base_ = ["_base_/runtime.py", "_base_/distillation.py", "_base_/photographs.py"]
