"""Model files: one file a kind of source, and the content-addressed cache."""
