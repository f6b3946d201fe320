"""Our own pipelines, one file a kind, and the loading of pipelines and their models."""
