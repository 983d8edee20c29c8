"""Queries on Dagster's own tables, for which it has no public API, with its SQLAlchemy definitions, on SQLite and Postgres.

Which run materialized a partition last, the check evaluations that remain when a run is deleted, and the times of a clock
that was ahead. Retention times belong in `prune`; Dagster's daemon deletes the ticks of schedules and sensors itself (`retention` in dagster.yaml).
"""

import sqlite3
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as db
from dagster import AssetKey, DagsterEventType, DagsterInstance

from aiseg2_pipeline.dagster_internals import connection, tables
from aiseg2_pipeline.orchestration.maintenance.sqlite_files import give_back

BATCH_ROWS = 500
SCHEDULED_TAG = ".dagster/scheduled_execution_time"
_MATERIALIZATION = DagsterEventType.ASSET_MATERIALIZATION.value


def last_materialized_by(instance: DagsterInstance, asset: AssetKey, step: str) -> set[str]:
    """Return the partitions that this step materialized last."""
    log = tables().events.c
    last = (
        db.select(db.func.max(log.id))
        .where(
            log.asset_key == asset.to_string(),
            log.dagster_event_type == _MATERIALIZATION,
            log.partition.is_not(None),
        )
        .group_by(log.partition)
    )
    with connection(instance.event_log_storage) as connected:
        rows = connected.execute(db.select(log.partition).where(log.id.in_(last), log.step_key == step))
        return {partition for (partition,) in rows}


def holding(instance: DagsterInstance, run_ids: Collection[str]) -> set[str]:
    """Return those of the runs with the last materialization of a partition, or of an asset without partitions."""
    event, later = tables().events.alias("event").c, tables().events.alias("later").c
    follows = db.and_(
        later.asset_key == event.asset_key,
        later.dagster_event_type == _MATERIALIZATION,
        later.id > event.id,
    )
    # Two conditions, because Postgres uses no index for "equal, or both null".
    superseded = db.or_(
        db.exists().where(follows, later.partition == event.partition),
        db.and_(event.partition.is_(None), db.exists().where(follows, later.partition.is_(None))),
    )
    query = (
        db.select(event.run_id)
        .where(event.run_id.in_(run_ids), event.dagster_event_type == _MATERIALIZATION, db.not_(superseded))
        .distinct()
    )
    with connection(instance.event_log_storage) as connected:
        return {run_id for (run_id,) in connected.execute(query)}


def drop_evaluations(instance: DagsterInstance, before: datetime) -> Iterator[int]:
    """Delete check evaluations before a time (UTC) in batches, without the newest of each check; yield how many."""
    table = tables().evaluations
    by_check = (table.c.asset_key, table.c.check_name, table.c.partition)
    with connection(instance.event_log_storage) as connected:
        newest = [
            row_id for (row_id,) in connected.execute(db.select(db.func.max(table.c.id)).group_by(*by_check))
        ]
    old = table.c.create_timestamp < before.replace(tzinfo=None)
    batch = db.select(table.c.id).where(old, table.c.id.not_in(newest)).order_by(table.c.id).limit(BATCH_ROWS)
    while True:
        with connection(instance.event_log_storage) as connected:
            deleted = connected.execute(table.delete().where(table.c.id.in_(batch))).rowcount
        if not deleted:
            return
        yield deleted


def drop_later_than(instance: DagsterInstance, now: datetime) -> None:
    """Delete the ticks later than `now` (UTC), and set later times of schedules and sensors to it.

    Dagster would continue only after them. A scheduled time of which a run exists would not run again when it comes, so
    those runs lose the tag by which they are found.
    """
    ticks, run_tags = tables().ticks, tables().run_tags
    with connection(instance.schedule_storage) as connected:
        connected.execute(ticks.delete().where(ticks.c.timestamp > now.replace(tzinfo=None)))
    with connection(instance.run_storage) as connected:
        later = db.and_(run_tags.c.key == SCHEDULED_TAG, run_tags.c.value > now.isoformat())
        connected.execute(run_tags.delete().where(later))
    now_s = now.timestamp()
    for state in instance.all_instigator_state():
        data: Any = state.instigator_data
        times = data._asdict().items() if data else ()
        late = {name: now_s for name, value in times if name.endswith("_timestamp") and (value or 0) > now_s}
        if late:
            instance.update_instigator_state(state.with_data(data._replace(**late)))


def give_back_space(instance: DagsterInstance) -> Iterator[int]:
    """Return unused pages of SQLite files to the disk; yield after each batch."""
    for storage in (instance.event_log_storage, instance.run_storage, instance.schedule_storage):
        while True:
            with connection(storage) as connected:
                raw = connected.connection.dbapi_connection
                if not isinstance(raw, sqlite3.Connection) or not give_back(raw):
                    break
            yield 1
