"""What is served. The only place that imports bentoml."""
