"""Dagster definitions: partitions, resources, assets, checks, jobs, schedules and sensors, a module for each concept.

How a device is read, a row is stored or a point is written belongs in the packages that these use; Dagster's processes
belong in `runtime`.
"""
