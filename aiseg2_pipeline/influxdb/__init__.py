"""InfluxDB: the schema as line protocol, one request, and the delivery of pending rows in batches.

Which rows are pending belongs in `store`; the schedule of deliveries in `orchestration`.
"""
