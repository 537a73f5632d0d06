"""What runs, when, in which order. The only place that imports prefect."""
