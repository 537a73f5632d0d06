"""The peers: each a small program as its project's documentation shows it, run in an environment without evergreen.

Every one finds the estimator that evergreen trained in ENDPOINT_MODEL, and imports the project's copy for the functions
in it, as a team would install the package that it trained with.
"""
