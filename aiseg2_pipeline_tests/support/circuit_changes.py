"""Random changes of the simulated household's circuits: renamed, removed, added again, two with the same name.

Some names are ordinary, others hostile: the device accepts every name that is typed or read from its card.
"""

from datetime import datetime, timedelta

import numpy as np

from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.chance import uniform
from aiseg2_pipeline.simulator.household import Rename

ORDINARY_NAMES = (
    "書斎",
    "子供部屋",
    "納戸",
    "和室　コンセント",
    "庭",
    "床暖房・ＬＤ",
    "２階・エアコン",
    "Server rack",
    "冷蔵庫（大）",
)
HOSTILE_NAMES = (
    "\"二重\"と'一重'",
    "逆\\スラッシュ\\",
    "a,b=c d",
    "おわりは=",
    ",",
    " 前後に空白 ",
    "　全角の空白　",
    "改\n行",
    "行の終わり\r\n",
    "タブ\tと鐘\x07",
    "\x00ナル\x1b[31m",
    "次の行\x85段落\u2029",
    "🏠👨\u200d👩\u200d👧 電気",
    "-",
    "--",
    "長い名前" * 60,
    "<br />",
    "<b>太い</b></script><script>alert(1)</script><!--",
    "&amp;&nbsp;&#65;&",
    "\u202eふらた\u202c",
    "ゼロ\u200b幅\ufeff",
    "'; DROP TABLE readings; --",
    "$(reboot) `reboot` %s {0}",
    "../../etc",
    "総消費電力",
    "未使用",
    "無効1",
    "・１階・洋室・",
    "0",
    "NaN",
)
_CHANGE_PROBABILITY = 0.4  # a day
_MAX_REMOVED = 8
_IDS = [circuit.circuit_id for circuit in CIRCUITS]


def changes(seed: int, start: datetime, days: int, *, whole_hours: bool = False) -> list[Rename]:
    """Return the changes in `days` days from `start` (aware), in order of time: about two in five days.

    With `whole_hours`, only at whole hours after `start`.
    """
    names: dict[int, str | None] = {circuit.circuit_id: circuit.name for circuit in CIRCUITS}
    renames: list[Rename] = []
    for day in range(days):
        happens, hour, what, which, name = (
            float(uniform(seed, f"circuits change: {subject}", np.array([day]))[0])
            for subject in ("happens", "hour", "what", "which", "name")
        )
        if happens >= _CHANGE_PROBABILITY:
            continue
        after = timedelta(hours=int(24 * hour) if whole_hours else 24 * hour)
        removed = [circuit_id for circuit_id in _IDS if names[circuit_id] is None]
        registered = [circuit_id for circuit_id in _IDS if names[circuit_id] is not None]
        circuit_id = registered[int(which * len(registered))]
        new: str | None = HOSTILE_NAMES[int(name * len(HOSTILE_NAMES))]
        if what < 0.15 and len(removed) < _MAX_REMOVED:
            new = None
        elif what < 0.3 and removed:
            circuit_id = removed[int(which * len(removed))]
        elif what < 0.45:
            new = names[registered[int(name * len(registered))]]
        elif what < 0.65:
            new = ORDINARY_NAMES[int(name * len(ORDINARY_NAMES))]
        names[circuit_id] = new
        renames.append((start + timedelta(days=day) + after, circuit_id, new))
    return renames
