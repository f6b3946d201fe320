"""Tests of engine/workloads: real files."""
