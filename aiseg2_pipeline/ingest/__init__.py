"""From the device to the store: power, energy and climate are read, made into frames, and stored.

Parsing the device's pages belongs in `aiseg2`; filling gaps in `gaps`; when something is read, in `orchestration`.
"""
