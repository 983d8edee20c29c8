"""Read a Panasonic AiSEG2 every minute, store every reading, and write it to InfluxDB."""

__version__ = "0.1.0"
