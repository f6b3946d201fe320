"""One plug-in for each port of the engine."""
