"""A program that shares what it has imported, and prints how many of 1000 new references to a function are counted."""

PROGRAM = """
import gc, json, os, sys
from aiseg2_pipeline.runtime.shared_objects import share_imported_objects
file = open(os.devnull)
descriptor = file.fileno()
share_imported_objects()
before = sys.getrefcount(json.dumps)
references = [json.dumps] * 1000
print(sys.getrefcount(json.dumps) - before, end=" ")
del file
try:
    os.fstat(descriptor)
except OSError:
    print("closed", json.dumps(gc.get_freeze_count() > 1000))
"""
EACH_IS_COUNTED = "1000 closed true\n"
NONE_IS_COUNTED = "0 closed true\n"
