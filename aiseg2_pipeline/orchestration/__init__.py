"""All that imports dagster: partitions, resources, assets, checks, jobs and schedules.

One module for each of Dagster's concepts. How a device is read, a row is kept or a point is written belongs in the
rooms that this one calls.
"""
