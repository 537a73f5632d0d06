"""Yours: one module per model, each with `spec = ModelSpec(...)`."""
