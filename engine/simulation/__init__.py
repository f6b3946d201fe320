"""The simulated provider: its limits, speed and faults, and a server that serves it on a socket.

`provider.py` decides the outcome of a call. The executor `provider=simulated` and the server carry the same decision
out, one with `asyncio.sleep` and errors, the other with bytes on a socket. Each wire protocol of the server is a file.
"""
