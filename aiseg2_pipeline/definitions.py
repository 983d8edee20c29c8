"""What Dagster loads (workspace.yaml names it): settings in, Definitions out.

Importing it also puts the settings of `.env` into the environment, gives new files to their owner alone, and has runs
log nothing but errors.
"""

import os

from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.orchestration.loggers import print_errors_alone
from aiseg2_pipeline.settings import environment, load_settings

# The resources' secrets are read from the environment by name, so what `.env` says must be there.
os.environ.update(environment())
# What is kept is the household's own.
os.umask(0o077)
print_errors_alone()
defs = build_definitions(load_settings())
