"""The parts of `python benchmarks/overhead.py`: the server, the contenders and the peers."""
