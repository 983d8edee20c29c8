"""The processes: their start and supervision, Dagster's home, and changes to Dagster's own services.

Jobs, schedules and whatever else Dagster runs belong in `orchestration`.
"""
