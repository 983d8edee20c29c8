"""The processes: starting and watching them, Dagster's home, and Dagster's own services with what we change of them.

What Dagster runs belongs in `orchestration`.
"""
