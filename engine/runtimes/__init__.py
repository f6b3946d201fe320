"""Models in this process: a folder for each backend, and what the backends share. Port: `tasks.local_model`."""
