"""The AiSEG2 as a plain library: its pages, its circuits, its client. No dagster, no influxdb, no pandas."""
