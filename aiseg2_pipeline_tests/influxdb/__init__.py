"""Tests of aiseg2_pipeline/influxdb and of the dashboards."""
