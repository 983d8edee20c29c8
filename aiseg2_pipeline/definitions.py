"""Build the Definitions that Dagster loads (the code server imports this module) from the settings.

The import has side effects: the settings of `.env` go into the environment, new files are for their owner alone, and
runs log only errors.
"""

import os

from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.orchestration.loggers import print_errors_alone
from aiseg2_pipeline.settings import environment, load_settings

# Resources read their secrets from the environment by name, so the settings of `.env` must be in it.
os.environ.update(environment())
# Only the owner may read the data.
os.umask(0o077)
print_errors_alone()
defs = build_definitions(load_settings())
