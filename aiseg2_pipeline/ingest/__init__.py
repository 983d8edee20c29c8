"""From the device to the store: reads power, energy and climate, converts them to frames, and stores them.

Parsing the device's pages belongs in `aiseg2`, filling gaps in `gaps`, schedules in `orchestration`.
"""
