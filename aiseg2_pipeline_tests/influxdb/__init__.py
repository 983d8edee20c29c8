"""Tests of what InfluxDB is given, and of what is asked of it."""
