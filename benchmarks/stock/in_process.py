"""Stock Dagster with the in-process executor."""

from dagster import in_process_executor

from benchmarks.stock import stock_definitions

defs = stock_definitions(in_process_executor)
