"""Reads a Panasonic AiSEG2 every minute, keeps every reading, and writes it to InfluxDB."""

__version__ = "0.1.0"
