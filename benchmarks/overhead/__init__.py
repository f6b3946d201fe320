"""What `python benchmarks/overhead.py` is made of: the server, the contenders and the peers."""
