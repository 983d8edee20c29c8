"""The assets' names. Dagster's run history and people's own definitions refer to them, so they never change."""

from dagster import AssetKey

POWER_READINGS = AssetKey("power_readings")
INFLUXDB_POWER = AssetKey("influxdb_power")
ENERGY_HISTORY = AssetKey("energy_history")
ENERGY_COST = AssetKey("energy_cost")
INFLUXDB_ENERGY = AssetKey("influxdb_energy")
CLIMATE = AssetKey("climate")
INFLUXDB_CLIMATE = AssetKey("influxdb_climate")
DAILY_REPORT = AssetKey("daily_report")
