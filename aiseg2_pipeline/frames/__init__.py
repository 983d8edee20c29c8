"""The DataFrame schemas: columns, units and kinds of readings, energy and climate, and frames made from the device's models.

How a frame is stored belongs in `store`, how the device is read in `aiseg2`.
"""
