"""Without the extra `postgres`, a run history in PostgreSQL is reported by `run` and by `health`."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aiseg2_pipeline.runtime import dagster_home, health
from aiseg2_pipeline.settings import Settings, environment


@pytest.mark.parametrize("missing", ["dagster_postgres", "psycopg2"])
def test_a_missing_extra_is_one_message(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.from_environment(
        {
            "AISEG2_HOST": "127.0.0.1:9",
            "AISEG2_PASSWORD": "x",
            "AISEG2_DATA_DIR": str(tmp_path),
            "AISEG2_POSTGRES_URL": "postgresql://me:top-secret@127.0.0.1:1/runs",
        }
    )
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "psycopg2":
        message = health.problems(settings, datetime.now(UTC))[1]
        assert "the extra `postgres` is not installed" in message
    else:
        with pytest.raises(dagster_home.DagsterHomeError, match="make run EXTRAS=postgres") as raised:
            dagster_home.make(settings, Path(__file__).parents[2], environment(), print)
        message = str(raised.value)
    assert "AISEG2_POSTGRES_URL" in message
    assert "top-secret" not in message
