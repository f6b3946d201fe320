"""A provider that is none: what it takes, how fast it is, what goes wrong, and a server that shows it on a socket.

`provider.py` decides what becomes of a call. The executor `provider=simulated` and the server carry the same decision
out, one with `asyncio.sleep` and errors, the other with bytes on a socket. Each wire protocol of the server is a file.
"""
