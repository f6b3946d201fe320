"""What is asked: reading a canonical body and building the canonical reply. One file a task; shared by the runtimes."""
