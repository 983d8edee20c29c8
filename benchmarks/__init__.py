"""Measurements. They print ratios of both sides, measured in one run; no test depends on them."""
