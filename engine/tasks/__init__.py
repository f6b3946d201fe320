"""Tasks: reading of canonical bodies and building of canonical replies. One file a task; shared by the runtimes."""
