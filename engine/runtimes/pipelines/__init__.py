"""Our own pipelines, one file a kind, and what loads a pipeline and its model."""
