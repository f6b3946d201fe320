"""Wire protocols: pure functions of bytes, no I/O. One folder a protocol."""
