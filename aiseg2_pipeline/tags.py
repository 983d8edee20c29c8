"""The run tags that are ours. Nothing else, so that the daemon and the webserver can know them without the pipeline's imports."""

# The minute that a run of the schedule is for; a run without it was started by a person.
MINUTE_TAG = "aiseg2/minute"
# A run that writes only what is pending, without a minute's limits of time.
PENDING_TAG = "aiseg2/pending"
# Work beside the live minute; dagster.yaml lets one such run go at a time.
BACKGROUND_TAG = "aiseg2/background"
