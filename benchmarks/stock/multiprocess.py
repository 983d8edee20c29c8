"""Stock Dagster with its default executor."""

from benchmarks.stock import stock_definitions

defs = stock_definitions(None)
