"""What keeps flows running.

- warmup: runs a flow once, with everything slow loading at the same time.
- prefect_server: the Prefect server that runs report to.
- up: supervises server, worker and endpoints on one machine.
- deploy: registers the flows as deployments with schedules.
- run_state: marks runs in progress; closes and restarts those that were killed; the time limit.
- notify: events about a model, and the automations that send them to people.
- alarms: shows in Prefect that an alarm stopped a canary.
"""
