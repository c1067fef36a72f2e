"""Graphs on NVIDIA GPUs, direct on TensorRT: see engine.py. Loading it imports neither tensorrt nor torch."""
