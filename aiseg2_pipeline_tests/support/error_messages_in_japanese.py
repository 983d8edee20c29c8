"""Every message that a household gets on its telephone, with the facts that it follows from."""

from datetime import timedelta
from pathlib import Path

from aiseg2_pipeline.aiseg2.errors import Refused, Unreachable
from aiseg2_pipeline.alerts import rules
from aiseg2_pipeline.alerts.rules import Condition, Facts, Message, due, judge
from aiseg2_pipeline.influxdb.client import Unavailable
from aiseg2_pipeline.store.damage import DamagedFile
from aiseg2_pipeline_tests.alerts.test_alerts import DAY, HOUR, NOW, facts, trouble

AFTER = timedelta(minutes=10)
ERROR = "The AiSEG2 at http://unit did not answer /page: check AISEG2_HOST."
DAMAGED = Path("/data/readings-damaged-20261123T071500Z.sqlite")
# What was wrong, and the error that is told beside it.
WRONG: dict[str, tuple[Facts, Condition, str]] = {
    "no reading": (
        facts(last_reading=NOW - HOUR, device=trouble(Unreachable(ERROR), HOUR)),
        Condition.NO_READING,
        ERROR,
    ),
    "never a reading": (facts(last_reading=None), Condition.NO_READING, ""),
    "no store": (facts(last_reading=NOW - HOUR, store_error=ERROR), Condition.NO_READING, ERROR),
    "refused login": (
        facts(last_reading=NOW - HOUR, device=trouble(Refused(ERROR), HOUR)),
        Condition.LOGIN,
        ERROR,
    ),
    "no InfluxDB": (facts(influxdb=trouble(Unavailable(ERROR), HOUR)), Condition.INFLUXDB, ERROR),
    "little room": (facts(free_bytes=900_000_000), Condition.DISK, ""),
    "damaged store": (
        facts(damaged=[DamagedFile(DAMAGED, "the file is empty", None)]),
        Condition.DAMAGE,
        "the file is empty",
    ),
    "salvaged store": (
        facts(damaged=[DamagedFile(DAMAGED, "the file is empty", "Nothing of it can be read.")]),
        Condition.DAMAGE,
        "Nothing of it can be read.",
    ),
    "hours given up": (facts(given_up=[NOW - 2 * DAY], complete=False), Condition.HOURS, ""),
}
# What a household is asked to do, or told that it can do.
STEPS = ("ください", "調べられます", "見られます")


def wrong() -> dict[str, tuple[Message, str]]:
    """Return the messages that tell of something wrong, each with the error that it must tell."""
    return {
        name: (verdict.message, error)
        for name, (known, condition, error) in WRONG.items()
        if (verdict := judge(known, AFTER).get(condition))
    }


def over() -> list[Message]:
    """Return the messages that tell that it is over, and the test."""
    fine = judge(facts(complete=True, damaged=[]), AFTER)
    told = due(fine, dict.fromkeys(Condition, ""))
    return [*(one.message for one in told), rules.TEST]
