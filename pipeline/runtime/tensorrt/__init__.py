"""Graphs on NVIDIA GPUs, direct on TensorRT. Start at engine.py; nothing here imports tensorrt or torch at load."""
