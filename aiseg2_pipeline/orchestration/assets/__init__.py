"""The assets: one module for each, with what its run logs and returns.

Reading the device and writing to InfluxDB belong in `ingest` and `influxdb`; jobs and schedules in `jobs`.
"""
