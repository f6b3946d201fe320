"""The compatibility matrix: every model type that transformers knows, built small and run on each hardware."""
