"""Runs graphs on NVIDIA GPUs with TensorRT. Importing the package loads neither tensorrt nor torch."""
