"""Compiled CPU kernels as PyTorch operators."""
