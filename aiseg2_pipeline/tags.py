"""The pipeline's own run tags, and nothing else: the daemon and the webserver import them without the rest."""

# The minute that the schedule started a run for; a run without it was started by a person.
MINUTE_TAG = "aiseg2/minute"
# A run that writes only the pending rows, without the time limits of a minute.
PENDING_TAG = "aiseg2/pending"
# Background work; dagster.yaml allows one such run at a time.
BACKGROUND_TAG = "aiseg2/background"
