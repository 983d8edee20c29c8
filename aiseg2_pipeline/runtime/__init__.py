"""The processes: their start and supervision, Dagster's home, and changes to Dagster's own services.

Jobs, schedules and the other definitions of Dagster belong in `orchestration`.
"""
