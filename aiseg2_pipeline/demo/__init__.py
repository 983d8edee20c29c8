"""The past of the demo's simulated home: computed once and stored, so that the first start has something to show.

Only the command starts it, as a process of its own (`past`). The values belong in `rows`; they are those that the
simulated device would serve, so that later fills and energy readings agree with them.
"""
