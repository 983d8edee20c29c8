"""Messages to a household: when one is due and its text (`rules`), and sending it (`send`).

Gathering the facts and the schedule belong in `orchestration/sensors`.
"""
