"""The Mamba block and its selective scan on packed sequences; knows PyTorch alone."""

from .block import MambaBlock, MambaState
from .convolution import causal_conv1d_silu
from .dropout import Dropout
from .fused_gelu import gelu_dropout
from .fused_norm import dropout_norm
from .fused_softmax import softmax_loss_
from .products import Linear, product
from .scan import BACKENDS, ScanBackendError, backends, check_backend, selective_scan

__all__ = [
    "BACKENDS",
    "Dropout",
    "Linear",
    "MambaBlock",
    "MambaState",
    "ScanBackendError",
    "backends",
    "causal_conv1d_silu",
    "check_backend",
    "dropout_norm",
    "gelu_dropout",
    "product",
    "selective_scan",
    "softmax_loss_",
]
