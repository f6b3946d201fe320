"""What is counted, shown and logged. `metrics` needs only the core; `progress` and `log` belong to runs."""
