"""Tests of engine/runs: real directories, and real processes that are killed."""
