"""Missing minutes: finding them, estimating them from the device's energy, and filling them.

Reading the energy from the device belongs in `ingest`; the schedule of fills in `orchestration`.
"""
