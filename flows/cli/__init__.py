"""The `evergreen` command.

- main: one function per verb, with its options.
- views: what each verb prints with --json, as dataclasses; their JSON Schemas.
- render: how a terminal shows these views, and the progress of a run.
"""
