"""Missing minutes: which there are, what the device's energy says of them, and filling them.

How energy is read from the device belongs in `ingest`; when a fill runs, in `orchestration`.
"""
