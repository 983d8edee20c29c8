"""Jobs that keep the record and Dagster's own files in order: closing a day, pruning runs, recovering damaged stores.

Sensors that start jobs belong in `sensors`.
"""
