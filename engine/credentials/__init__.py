"""Keys: their sources, and masking of secrets in text."""
