"""The processes that serve a model: one supervisor, and its workers."""
