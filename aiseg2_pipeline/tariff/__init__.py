"""What electricity costs: plans, the calendar of prices, and the bill.

A plain library: plans, dates and hours of energy in, yen out. No Dagster, no store and no settings here; what stores or
shows a cost belongs in `orchestration` and `cli`.
"""
