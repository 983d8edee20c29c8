"""The sensors: backfill of missing hours, and messages to the household.

Which hours are missing belongs in `gaps`; the text of a message in `alerts`.
"""
