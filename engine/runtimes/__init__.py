"""Models in this process, one file a runtime. Their port is `engine.runtime`; what a task means is in `engine/tasks`."""
