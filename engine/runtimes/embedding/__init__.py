"""Sentence embeddings, shared by the backends."""
