"""Faster kernels for MegEngine on a CPU."""
