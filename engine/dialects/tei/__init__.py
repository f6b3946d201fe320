"""Hugging Face's Text Embeddings Inference."""
