"""Runs a small model on each hardware, in a process of its own."""
