"""Measurements that the command line can repeat: `engine bench seed`, `engine bench quantization`.

Each contender runs in a process of its own, so that its memory is its own; speeds are medians.
"""
