"""Model files to objects that follow `core.model.Model`, one file a runtime."""
