"""The library's face: Engine, its event loop, its endpoint handlers, live policy and explanations."""
