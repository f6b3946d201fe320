"""Sources of requests: lazily read rows, one file a kind of source."""
