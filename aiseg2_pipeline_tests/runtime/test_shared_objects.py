"""What was imported before a fork stays shared, and nothing else lives longer for it; the container's Python is tested there."""

import subprocess
import sys

from aiseg2_pipeline_tests.support.shared_objects import EACH_IS_COUNTED, NONE_IS_COUNTED, PROGRAM


def test_references_to_imported_code_are_not_counted_where_python_can_and_a_file_is_still_closed() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)  # noqa: S603 - our own program
    assert ended.stdout == (NONE_IS_COUNTED if sys.version_info >= (3, 12) else EACH_IS_COUNTED)
