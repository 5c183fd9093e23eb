"""Modules that a training imports on its way, here so that no forked one imports them anew.

All of them take two to three seconds, most of what a small run takes.
"""

import safetensors.torch  # noqa: F401
import thop  # noqa: F401
import torch._dynamo  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
