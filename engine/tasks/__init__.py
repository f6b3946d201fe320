"""Tasks: reads a canonical body and builds the canonical reply. One file a task; shared by the runtimes."""
