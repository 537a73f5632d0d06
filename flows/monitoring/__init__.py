"""Watching a served model, and the triggers that retrain it.

observe: measures traffic, drift and performance from logged requests and labels.
report: the result of an observation, a MonitoringReport.
triggers: which triggers are due, and the events that retrain a model.
champion_drift: the drift of new data since the champion was trained.
"""
