"""The names of the readings' series, without pandas, for processes that only read the store."""

TOTAL_GENERATION = "総発電電力"
TOTAL_CONSUMPTION = "総消費電力"
TOTAL_EXCHANGE = "売買電力"
BATTERY_CHARGE = "充電率"
BATTERY_STATE = "状態"

FLOW_SUN, FLOW_GRID, FLOW_BATTERY = "太陽光", "系統", "蓄電池"
