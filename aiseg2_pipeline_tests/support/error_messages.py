"""Every error sentence that a person can meet, with how it is brought about and what it must name.

One entry for each in the modules `sentences_of_…`; what is no error of a person's, or cannot be brought about here, is
below with its reason. `test_sentences` checks the sentences, and that none of the source is missing. So whoever adds
an error adds an entry here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from aiseg2_pipeline_tests.support.error_stage import Stage

# What a person is told to do. A new verb that is one may be added.
STEPS = (
    *(
        "add",
        "ask",
        "check",
        "choose",
        "copy",
        "correct",
        "create",
        "end",
        "export",
        "free",
        "go on",
        "install",
        "let",
        "look",
    ),
    *(
        "lower",
        "move",
        "name",
        "open",
        "put",
        "raise",
        "read",
        "register",
        "remove",
        "restart",
        "run",
        "save",
        "see",
        "send",
        "set",
        "start",
    ),
    *("stop", "try", "use", "wait", "write"),
)
STEP = re.compile(rf"(?:^|[:;,(.] |\b(?:and|or|then|goes on,) )(?:{'|'.join(STEPS)})\b", re.IGNORECASE)
# What goes on without anybody's doing.
BY_ITSELF = (
    "goes out with the next",
    "the next run goes on",
    "it is asked once a day",
    "by itself",
    "goes to later runs",
    "tried again",
)


@dataclass(frozen=True)
class Sentence:
    """An error: `said` makes it happen and returns what a person reads.

    `names` is what it must name: the page, the element, the file, the server; `setting` the setting that is at fault
    or helps. A `line` is one of the doctor's, which begins with what was looked at.
    """

    id: str
    said: Callable[[Stage], str]
    names: tuple[str, ...]
    setting: str = ""
    line: bool = False


# What the list leaves out: texts by module, as they begin, each with the reason.
PROGRAMMERS = (
    "It tells a programmer that a call was wrong: no page, setting, file or option of a person's leads to it."
)
FOUND = "It tells what was found or what goes on: nothing failed."
WORDS = "It is a word in a table, of a picture, of a list of fonts, or within another sentence."
INSIDE = "It is compared with what a server says, or becomes another sentence before anybody reads it."
NOT_HERE = "It cannot be brought about on every machine that runs the tests."
ANOTHER_DAGSTER = "It is told with a Dagster that has other private names: see test_dagster_internals."
LEFT_OUT: dict[str, tuple[tuple[str, str], ...]] = {
    "aiseg2.endpoints": (
        ("… is nothing that may be asked of the device", PROGRAMMERS),
        ("a page's number is an int", PROGRAMMERS),
    ),
    "aiseg2.connection": (
        ("a device's address is http", PROGRAMMERS),
        ("it took too long to connect", NOT_HERE),
    ),
    "cli.record": ((" and of the bucket …", FOUND),),
    "dagster_internals": (("this Dagster uses", ANOTHER_DAGSTER),),
    "ingest.climate": (("Not verified on a real unit.", FOUND),),
    "runtime.dagster_home": (("no reason given", NOT_HERE),),
    "cli.doctor": tuple(
        (text, FOUND)
        for text in (
            *("no AISEG2_HOST is set", " In the demo, ", "… circuits are registered", "the export page is"),
            *(
                "no generating device",
                "…, consumption …",
                "… circuits, … W in all",
                "no page told",
                "…, last reading …",
            ),
            *(
                "none is configured",
                "token and bucket",
                "not known, and neither",
                "none in the last",
                "not compared",
            ),
            *(
                "the bucket has no point",
                "the … series",
                "… new, which",
                "… in the bucket that",
                "… of several circuits",
            ),
            *(
                "… is kept and may be deleted.",
                " and … more",
                "one without tags",
                "…; `aiseg2-pipeline doctor --alert`",
                "… took the test message",
            ),
            "… hours have rows",
        )
    ),
    "influxdb.client": (
        ("InfluxWriter(", PROGRAMMERS),
        ("unable to parse", INSIDE),
        ("record layer failure", INSIDE),
    ),
    "orchestration.sensors.alerts": (("There is nothing to tell.", FOUND), ("… messages were sent", FOUND)),
    "orchestration.checks": (
        ("All are there.", FOUND),
        (" and … more", WORDS),
        ("Nothing is missing.", FOUND),
        ("All hours add up.", FOUND),
        ("Not judged: ", FOUND),
    ),
    "orchestration.maintenance.close_day": (("The day is not closed", ANOTHER_DAGSTER),),
    "orchestration.maintenance.prune": (("Old runs are not deleted", ANOTHER_DAGSTER),),
    "runtime.code_server": (("it ended at once", NOT_HERE), ("Error: the definitions", ANOTHER_DAGSTER)),
    "runtime.webserver": (("Error: Dagster's pages", ANOTHER_DAGSTER),),
    "orchestration.assets.energy_history": (("SD card, half hours", WORDS), ("graph pages, hours", WORDS)),
    "orchestration.sensors.backfill": (
        ("A background run is still going.", FOUND),
        ("Nothing is missing that", FOUND),
    ),
    "orchestration.assets.daily_report": (("the AiSEG2's own Wh", WORDS), ("the minutes that are known", WORDS)),
    "orchestration.resources": (
        ("The AiSEG2 at …, as ….", FOUND),
        ("The local stores in ….", FOUND),
        ("The InfluxDB at …", FOUND),
        ("None is configured", FOUND),
        ("Keeps the ", FOUND),
    ),
    "orchestration.assets.influxdb": (("there is no destination", PROGRAMMERS),),
    "frames.readings": (("a … frame ", PROGRAMMERS),),
    "store.recovery": (
        ("rows are out of order", NOT_HERE),
        ("Nothing of it can be read", FOUND),
        ("… rows were restored", FOUND),
        ("…; all of it could be read.", FOUND),
        ("…; … time ranges could not be read, ", FOUND),
    ),
    "runtime.services": (("the first reading is there", FOUND),),
    "report.font": (("Noto Sans ", WORDS), ("Source Han ", WORDS), ("Hiragino ", WORDS)),
    "simulator.faults": (("the rate of faults is", PROGRAMMERS), ("slow_s and reboot_s", PROGRAMMERS)),
    "simulator.household": (("the simulated household has no circuit", PROGRAMMERS),),
    "simulator.server": (("the simulator's start needs a time zone", PROGRAMMERS),),
    "store.database": (("Could not decode to UTF-8", INSIDE),),
    "store.readings": (("the store holds whole seconds", PROGRAMMERS),),
    "store.__init__": (("module … has no attribute", PROGRAMMERS),),
    "store.outbox": (("the readings of … … are in", PROGRAMMERS), ("rows of an unknown series", NOT_HERE)),
    "store.transactions": (("the store needs a time with its zone", PROGRAMMERS),),
}
