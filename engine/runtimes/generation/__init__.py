"""Text generation, shared by the backends."""
