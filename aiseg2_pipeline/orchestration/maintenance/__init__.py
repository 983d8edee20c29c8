"""Maintenance jobs on the stores and on Dagster's storage: closing a day, pruning runs, recovering damaged stores.

Sensors that start jobs belong in `sensors`.
"""
