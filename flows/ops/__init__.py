"""What keeps flows running: the Prefect server, deployments, notifications and the state of runs."""
