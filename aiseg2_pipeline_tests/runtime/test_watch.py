"""The services start again for a reason only."""

from datetime import UTC, datetime
from pathlib import Path

from aiseg2_pipeline.runtime.watch import Watch
from aiseg2_pipeline.settings import Settings

NOW = datetime(2026, 7, 14, 3, 0, 30, tzinfo=UTC)


def test_a_search_that_reached_its_start_date_does_not_start_the_services_again(tmp_path: Path) -> None:
    settings = Settings.from_environment({"AISEG2_DATA_DIR": str(tmp_path), "AISEG2_START_DATE": "2026-07-01"})
    settings.first_partition_path.parent.mkdir(parents=True, exist_ok=True)
    settings.first_partition_path.write_text("2026-07-14-11:00\n", encoding="ascii")
    watch = Watch(settings, NOW)
    for found, starts_again in (
        ("2026-07-14-11:00", False),
        ("2026-07-01-00:00", False),
        ("2026-07-03-00:00", True),
    ):
        settings.first_partition_path.write_text(f"{found}\n", encoding="ascii")
        assert (watch.reason(NOW) is not None) == starts_again
