"""What good data is. The only place that imports great_expectations."""
