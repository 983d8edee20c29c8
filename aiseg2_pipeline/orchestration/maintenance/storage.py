"""What Dagster's storage has no public way for: its own tables, by its own SQLAlchemy definitions, on SQLite and Postgres alike.

Deleting a run leaves the evaluations of its checks, and a schedule's ticks are never deleted, whatever `retention` in
dagster.yaml says (only sensors obey it). Which run holds a partition's last materialization is asked here as well.
What is kept how long is decided in `prune`.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as db
from dagster import AssetKey, DagsterEventType, DagsterInstance

from aiseg2_pipeline.dagster_internals import connection, tables
from aiseg2_pipeline.orchestration.maintenance.sqlite_files import give_back

BITE_ROWS = 500
_MATERIALIZATION = DagsterEventType.ASSET_MATERIALIZATION.value


def last_materialized_by(instance: DagsterInstance, asset: AssetKey, step: str) -> set[str]:
    """Return the partitions whose last materialization is of this step."""
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
    """Return those of the runs that hold the last materialization of any asset partition, or of an asset without partitions."""
    event, later = tables().events.alias("event").c, tables().events.alias("later").c
    follows = db.and_(
        later.asset_key == event.asset_key,
        later.dagster_event_type == _MATERIALIZATION,
        later.id > event.id,
    )
    # Two questions, because Postgres uses no index for "equal, or both absent".
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
    """Delete the evaluations of checks before a time (UTC), bite by bite, but the newest of each; yield how many."""
    table = tables().evaluations
    by_check = [table.c.asset_key, table.c.check_name, table.c.partition]
    return _drop(
        instance.event_log_storage, table, table.c.create_timestamp < before.replace(tzinfo=None), by_check
    )


def drop_ticks(instance: DagsterInstance, before: datetime) -> Iterator[int]:
    """Delete the ticks of schedules and sensors before a time (UTC), bite by bite, but the newest of each; yield how many."""
    table = tables().ticks
    by_instigator = [table.c.job_origin_id, table.c.selector_id]
    return _drop(instance.schedule_storage, table, table.c.timestamp < before.replace(tzinfo=None), by_instigator)


def give_back_space(instance: DagsterInstance) -> Iterator[None]:
    """Give unused pages back to the disk, where the storage is SQLite; yield after each bite."""
    for storage in (instance.event_log_storage, instance.run_storage, instance.schedule_storage):
        while True:
            with connection(storage) as connected:
                raw = connected.connection.dbapi_connection
                if not isinstance(raw, sqlite3.Connection) or not give_back(raw):
                    break
            yield


def _drop(
    storage: object, table: db.Table, old: db.ColumnElement[bool], group: Sequence[db.ColumnElement[Any]]
) -> Iterator[int]:
    with connection(storage) as connected:
        newest = [row_id for (row_id,) in connected.execute(db.select(db.func.max(table.c.id)).group_by(*group))]
    bite = db.select(table.c.id).where(old, table.c.id.not_in(newest)).order_by(table.c.id).limit(BITE_ROWS)
    while True:
        with connection(storage) as connected:
            deleted = connected.execute(table.delete().where(table.c.id.in_(bite))).rowcount
        if not deleted:
            return
        yield deleted
