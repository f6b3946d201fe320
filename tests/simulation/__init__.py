"""Tests of engine/simulation: the decision on a clock moved by hand, the server over real sockets."""
