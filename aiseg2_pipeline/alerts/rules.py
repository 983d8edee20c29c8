"""Decide when a message to the household is due, and write its text. Pure rules: nothing is read or sent here.

A message is due to a service when a condition differs from the last one that was sent to it. So a problem is reported once
when it starts and once when it ends; an unsent message stays due; the end of a problem that was never reported is not
sent. A condition that cannot be judged now changes nothing.

The messages are in Japanese, for Japanese households. The error of a library or the device follows in English, as Dagster's
pages and the documentation show it.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from aiseg2_pipeline.gaps.find import Hour
from aiseg2_pipeline.japan_time import DAY, TOKYO
from aiseg2_pipeline.store.damage import DamagedFile
from aiseg2_pipeline.store.incidents import Trouble

# The device may refuse a login while it starts.
LOGIN_AFTER = timedelta(minutes=3)
INFLUXDB_AFTER = timedelta(hours=1)
# A year of readings is 0.4 GB, and Dagster's history of some days about as much.
LITTLE_FREE_BYTES = 1_000_000_000
ENOUGH_FREE_BYTES = 1_200_000_000
GB = 1e9
NAMED_HOURS = 6
DETAIL_CHARS = 300
_CONTROLS = ("Cc", "Cf", "Cs")


class Condition(StrEnum):
    """A problem that is reported to the household."""

    NO_READING = "no_reading"
    LOGIN = "login"
    INFLUXDB = "influxdb"
    DISK = "disk"
    HOURS = "hours"
    DAMAGE = "damage"
    HISTORY = "history"


@dataclass(frozen=True)
class Facts:
    """The pipeline's state at `now`.

    `watching_since` is the start of the current watch; `device` and `influxdb` are their incidents; `store_error` is the
    error of a store that cannot be opened. `hours` are the recent hours, None if they were not read. `free_bytes` is the free
    space on the disk of `folder`, None if unknown.
    `damaged` are the damaged stores that are kept, `history` the damaged files of Dagster.
    """

    now: datetime
    watching_since: datetime
    last_reading: datetime | None
    device: Trouble | None
    influxdb: Trouble | None
    store_error: str | None
    free_bytes: int | None
    folder: str
    hours: Sequence[Hour] | None = None
    damaged: Sequence[DamagedFile] = ()
    history: Sequence[DamagedFile] = ()


@dataclass(frozen=True)
class Message:
    """A message in plain text."""

    title: str
    body: str


@dataclass(frozen=True)
class Verdict:
    """A problem and its message. A later `mark` than the one that was sent makes the message due again."""

    message: Message
    mark: str = ""


# None: no problem. An absent condition cannot be judged now.
Verdicts = dict[Condition, Verdict | None]
# The open conditions that were sent to a service, each with its mark.
Sent = Mapping[Condition, str]


@dataclass(frozen=True)
class Due:
    """A message to send to a service, and the mark to store for the condition afterwards (None: it has ended)."""

    condition: Condition
    message: Message
    mark: str | None


def judge(facts: Facts, after: timedelta) -> Verdicts:
    """Return the verdict on each condition; a pause in the readings is a problem `after` that time."""
    verdicts = _readings(facts, after) | _influxdb(facts) | _disk(facts) | _damage(facts) | _history(facts)
    # Nothing is filled while nothing is read.
    if not (verdicts.get(Condition.NO_READING) or verdicts.get(Condition.LOGIN)):
        verdicts |= _hours(facts)
    return verdicts


def due(verdicts: Verdicts, sent: Sent) -> Iterator[Due]:
    """Yield the messages that are due to a service with the open conditions `sent`."""
    for condition, verdict in verdicts.items():
        if verdict is None:
            if condition in sent:
                yield Due(condition, _OVER[condition], None)
        elif condition not in sent or verdict.mark > sent[condition]:
            yield Due(condition, verdict.message, verdict.mark)


def given_up(hours: Sequence[Hour], now: datetime) -> list[datetime]:
    """Return the hours with missing minutes before live readings that are a day old: fills and retries have had their time."""
    back = [hour.start for hour in hours if hour.live and hour.start <= now - DAY]
    return [hour.start for hour in hours if back and hour.missing and hour.start < max(back)]


def _readings(facts: Facts, after: timedelta) -> Verdicts:
    last, now = facts.last_reading, facts.now
    if last is not None and now - last < min(after, LOGIN_AFTER):
        return {Condition.NO_READING: None, Condition.LOGIN: None}
    device = facts.device
    if device is not None and device.refused:
        if now - max(device.since, facts.watching_since) < LOGIN_AFTER:
            return {}
        body = f"ユーザー名とパスワード（AISEG2_USER、AISEG2_PASSWORD）を確認し、直したら再起動してください。{_detail(device.sentence)}"
        return {Condition.LOGIN: Verdict(Message("AiSEG2 にログインできません", body))}
    if now - max(last or facts.watching_since, facts.watching_since) < after:
        return {}
    reason = facts.store_error or (device.sentence if device else "")
    since = f"最後の計測は {_at(last)} です。" if last else "まだ一度も計測できていません。"
    what = "原因は aiseg2-pipeline doctor で調べられます。"
    if device is not None and not facts.store_error:
        what = "AiSEG2 の電源とネットワークを確認してください。"
    return {
        Condition.NO_READING: Verdict(Message("AiSEG2 の計測が止まっています", f"{since}{what}{_detail(reason)}"))
    }


def _influxdb(facts: Facts) -> Verdicts:
    trouble = facts.influxdb
    if trouble is None:
        return {Condition.INFLUXDB: None}
    if facts.now - max(trouble.since, facts.watching_since) < INFLUXDB_AFTER:
        return {}
    body = (
        f"{_at(trouble.since)} から書き込めていません。計測は手元に保存されており、失われません。InfluxDB が動いているか、設定（INFLUXDB_…）が"
        f"正しいかを確認してください。{_detail(trouble.sentence)}"
    )
    return {Condition.INFLUXDB: Verdict(Message("InfluxDB に書き込めません", body))}


def _disk(facts: Facts) -> Verdicts:
    if facts.free_bytes is None or LITTLE_FREE_BYTES <= facts.free_bytes < ENOUGH_FREE_BYTES:
        return {}
    if facts.free_bytes >= ENOUGH_FREE_BYTES:
        return {Condition.DISK: None}
    body = f"{facts.folder} のディスクの空きを増やしてください。いっぱいになると計測を保存できません。"
    title = f"ディスクの空きが残り {facts.free_bytes / GB:.1f} GB です"
    return {Condition.DISK: Verdict(Message(title, body))}


def _damage(facts: Facts) -> Verdicts:
    if not facts.damaged:
        return {Condition.DAMAGE: None}
    newest, stamp = _newest(facts.damaged)
    name = newest.path.name
    if any(one.salvaged is None for one in facts.damaged):
        title, mark = "記録ファイルが壊れました", stamp
        body = (
            f"計測は新しいファイルで続いています。壊れたファイル {name} から読み出せる記録は、自動で戻します。"
            f"くり返すときはディスクの故障かもしれないので、ディスクを交換してください。{_detail(newest.reason)}"
        )
    else:
        title, mark = "壊れた記録ファイルから読み出せる記録を戻しました", f"{stamp} salvaged"
        body = f"壊れたファイル {name} は残してあります。不要になったら削除してください。{_detail(newest.salvaged or '')}"
    return {Condition.DAMAGE: Verdict(Message(title, body), mark)}


def _newest(damaged: Sequence[DamagedFile]) -> tuple[DamagedFile, str]:
    """Return the newest damaged file, and the time in its name."""
    return max(((one, one.path.name.partition("-damaged-")[2]) for one in damaged), key=lambda found: found[1])


def _history(facts: Facts) -> Verdicts:
    if not facts.history:
        return {Condition.HISTORY: None}
    newest, stamp = _newest(facts.history)
    body = (
        "計測は続いており、失われていません。過去の日の表示は、保存した計測から自動で戻します。"
        f"くり返すときはディスクの故障かもしれないので、ディスクを交換してください。{_detail(newest.reason)}"
    )
    return {Condition.HISTORY: Verdict(Message("壊れた実行履歴を新しくしました", body), stamp)}


def _hours(facts: Facts) -> Verdicts:
    if facts.hours is None:
        return {}
    if not any(hour.missing for hour in facts.hours):
        return {Condition.HOURS: None}
    newest_first = sorted(given_up(facts.hours, facts.now), reverse=True)
    if not newest_first:
        return {}
    named = "、".join(f"{_at(hour)}" for hour in newest_first[:NAMED_HOURS])
    more = " など" if len(newest_first) > NAMED_HOURS else ""
    body = (
        f"{named}{more}。AiSEG2 の記録からは埋められませんでした。一覧は aiseg2-pipeline gaps で見られます。"
        "AiSEG2 に SD カードがあれば、入っているか確認してください。"
    )
    title = f"記録に抜けがある時間帯が {len(newest_first)} あります"
    return {Condition.HOURS: Verdict(Message(title, body), newest_first[0].isoformat())}


_OVER = {
    Condition.NO_READING: Message(
        "AiSEG2 の計測が再開しました", "抜けた時間は、AiSEG2 が覚えている分を自動で埋めます。"
    ),
    Condition.LOGIN: Message("AiSEG2 にログインできました", "計測は再開しています。"),
    Condition.INFLUXDB: Message("InfluxDB への書き込みが再開しました", "待っていた計測も順に書き込みます。"),
    Condition.DISK: Message("ディスクの空きが増えました", "計測を保存できる状態に戻りました。"),
    Condition.HOURS: Message("記録の抜けがなくなりました", "直近 35 日の記録はすべてそろっています。"),
    Condition.DAMAGE: Message("壊れた記録ファイルは削除されました", "計測は続いています。"),
    Condition.HISTORY: Message("壊れた実行履歴のファイルは削除されました", "計測は続いています。"),
}
TEST = Message("AiSEG2 の通知テスト", "この通知が届けば、設定（AISEG2_ALERT_URLS）は正しく動いています。")


def _at(moment: datetime) -> str:
    local = moment.astimezone(TOKYO)
    return f"{local.month}月{local.day}日 {local:%H:%M}"


def _detail(sentence: str) -> str:
    """Return an error's sentence as one line; device names in it can contain any character."""
    printable = "".join(" " if unicodedata.category(char) in _CONTROLS else char for char in sentence)
    text = " ".join(printable.split())
    return f"\n{text[:DETAIL_CHARS]}" if text else ""
