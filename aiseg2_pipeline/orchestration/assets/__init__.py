"""The assets: a module for each, with the metadata and log lines of its runs.

Reading the device and writing to InfluxDB belong in `ingest` and `influxdb`; jobs and schedules in `jobs`.
"""
