"""Memory of models: estimates, free memory, placement on devices."""
