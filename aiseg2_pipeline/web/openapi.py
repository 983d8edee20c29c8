"""The OpenAPI document of the JSON under /api/v1."""

from collections.abc import Mapping
from typing import Any

from aiseg2_pipeline import __version__

Schema = dict[str, Any]

TIME: Schema = {"type": "string", "format": "date-time"}
NUMBER: Schema = {"type": ["number", "null"]}
WHOLE: Schema = {"type": "integer"}
TEXT: Schema = {"type": ["string", "null"]}
YES_NO: Schema = {"type": "boolean"}
STATES = ("ok", "waiting", "silent", "stopped", "moved_aside", "upgrading", "unreadable")


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties}


def _column(items: Schema) -> Schema:
    return {"type": "array", "items": items}


NUMBERS, TIMES, COUNTS = _column(NUMBER), _column(TIME), _column(WHOLE)
MAYBE_TIME: Schema = {**TIME, "type": ["string", "null"]}
NEXT: Schema = {**TEXT, "description": "The address of the next piece of a long range."}
BY: Schema = {"type": "string", "enum": ["hour", "day", "month"]}
HUE: Schema = {"type": ["integer", "null"], "description": "0 to 7: the rank of the circuit in the last 30 days."}

SCHEMAS: Mapping[str, Schema] = {
    "now": _object(
        time=MAYBE_TIME,
        age_s=NUMBER,
        source={"type": "string", "enum": ["live", "stored"]},
        generation_w=NUMBER,
        consumption_w=NUMBER,
        solar_w=NUMBER,
        grid_w={**NUMBER, "description": "Positive: buying."},
        battery_w={**NUMBER, "description": "Positive: discharging."},
        battery_percent=NUMBER,
        charge_state={"enum": ["charging", "discharging", "idle", None]},
        circuits_time=MAYBE_TIME,
        circuits=_column(_object(name=TEXT, w=NUMBER, hue=HUE, is_sum=YES_NO)),
        home=_object(generation=YES_NO, battery=YES_NO, circuits=YES_NO, tariff=YES_NO),
        state=_object(code={"enum": list(STATES)}, since=MAYBE_TIME, wait_s=NUMBER, reason=TEXT),
        first_hour=MAYBE_TIME,
        demo=YES_NO,
        live=YES_NO,
    ),
    "series": _object(
        kind=TEXT,
        name=TEXT,
        unit=TEXT,
        step_s=WHOLE,
        time=TIMES,
        mean=NUMBERS,
        min=NUMBERS,
        max=NUMBERS,
        interval_s={
            **NUMBERS,
            "description": "0: read; more: filled with the device's mean over so many seconds.",
        },
        series=_column(_object(name=TEXT, unit=TEXT, hue=HUE, mean=NUMBERS)),
        next=NEXT,
    ),
    "energy": _object(
        by=BY,
        start=TIMES,
        **{
            f"{kind}_kwh": NUMBERS
            for kind in (
                *("generation", "consumption", "bought", "sold", "battery-charge", "battery-discharge"),
                *("ev-charge", "ev-discharge", "heatpump", "fuelcell"),
            )
        },
        complete={**_column(YES_NO), "description": "Whether every hour of the period is known."},
        estimated={**_column(YES_NO), "description": "Whether an hour of today comes from the readings."},
        circuits=_column(_object(id=TEXT, name=TEXT, hue=HUE, kwh=NUMBERS)),
        next=NEXT,
    ),
    "cost": _object(
        by=BY,
        start=TIMES,
        end=TIMES,
        month=_column(TEXT),
        bought_yen=NUMBERS,
        sold_yen=NUMBERS,
        saved_yen=NUMBERS,
        total_yen={**NUMBERS, "description": "By month: the sum of the bill, with base fee and levy."},
        missing_hours=COUNTS,
        bill=_column(
            _object(
                lines=_column(_object(name=TEXT, kwh=NUMBER, yen_per_kwh=NUMBER, yen=NUMBER)), notes=_column(TEXT)
            )
        ),
        next=NEXT,
    ),
    "coverage": _object(by=BY, start=TIMES, read=COUNTS, filled=COUNTS, missing=COUNTS, next=NEXT),
    "record": _object(
        first_hour=MAYBE_TIME,
        missing_minutes=WHOLE,
        fillable_minutes=WHOLE,
        can_be_filled_until=MAYBE_TIME,
        influxdb=_object(configured=YES_NO, pending_hours=NUMBER, oldest=MAYBE_TIME),
    ),
}
SUMMARIES = {
    "now": "The power flow now, the circuits, and the state of the pipeline.",
    "series": "The readings of one series, or without `name` of all series of a kind.",
    "energy": "The energy of hours, days or months in kWh.",
    "cost": "What hours, days or months cost in yen by the tariff.",
    "coverage": "The minutes of hours, days or months that were read, filled, and are missing.",
    "record": "Since when the record goes, what can still be filled, and what InfluxDB has yet to get.",
}
MOMENT: Schema = {"type": "string", "examples": ["2026-11", "2026-11-25", "2026-11-25T18:00:00+09:00"]}
RANGE: Mapping[str, Schema] = {"start": MOMENT, "end": MOMENT}
PARAMETERS: Mapping[str, Mapping[str, Schema]] = {
    "now": {"live": {"enum": [1], "description": "Read the power flow now, at most every 5 seconds."}},
    "series": {
        "kind": {"enum": ["total", "generation", "usage", "battery", "flow"]},
        "name": {"type": "string"},
        **RANGE,
        "points": {"type": "integer", "description": "At most so many steps."},
        "step": {"enum": [60, 3600, 86400]},
    },
    "energy": {"by": BY, **RANGE, "circuits": {"enum": [1]}},
    "cost": {"by": BY, **RANGE},
    "coverage": {"by": BY, **RANGE},
    "record": {},
}


def document() -> dict[str, Any]:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "aiseg2-pipeline",
            "version": __version__,
            "description": "A time without a zone is Japan's; a number that is not known is null. `.csv` after a name gives CSV, "
            "but for `now` and `record`. With AISEG2_PAGE_PASSWORD, log in by HTTP Basic with any user name.",
        },
        "paths": {f"/api/v1/{name}": {"get": _operation(name)} for name in SCHEMAS},
        "components": {"securitySchemes": {"password": {"type": "http", "scheme": "basic"}}},
        "security": [{}, {"password": []}],
    }


def _operation(name: str) -> dict[str, Any]:
    return {
        "summary": SUMMARIES[name],
        "parameters": [
            {"name": parameter, "in": "query", "required": parameter == "kind", "schema": schema}
            for parameter, schema in PARAMETERS[name].items()
        ],
        "responses": {
            "200": _response("The answer.", SCHEMAS[name]),
            "default": _response("A sentence that says what is wrong.", _object(error={"type": "string"})),
        },
    }


def _response(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
