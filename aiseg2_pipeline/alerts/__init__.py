"""Messages to a household: when one is due and what it says (`rules`), and sending it (`send`).

Gathering the facts, and the schedule on which that happens, belong in `orchestration/sensors`.
"""
