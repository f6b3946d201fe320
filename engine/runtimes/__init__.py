"""Models in this process, one file a runtime. Their port is `engine.runtime`; what is asked is in `engine/tasks`."""
