"""Runs a small model on each hardware, in a separate process."""
