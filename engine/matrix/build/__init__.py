"""Makes a small model and its inputs for any type of transformers."""
