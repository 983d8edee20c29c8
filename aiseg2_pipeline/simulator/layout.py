"""The frame of every page: its head, its title, its clock and its scripts.

Programs read elements by id and class, so these, their order and the quirks (XML declaration, `&nbsp;`, unquoted
attributes: not well-formed XML) are those of a real device; elements that no program reads are left out. The content of
a page belongs in `pages`, `settings_pages`, `rooms` and `graphs`.
"""

import json
import re
from datetime import datetime
from typing import Any

VERSION = "Ver.2.97I-01"

_ENDS_SCRIPT = re.compile("<(?=/script|!--)", re.IGNORECASE)
_CLOCK_KEYS = ("year", "month", "day", "hour", "min", "sec", "weekday")


def to_json(value: Any) -> str:
    """Return JSON as in the device's scripts: no spaces, no escapes except where text would end the script."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _ENDS_SCRIPT.sub(r"\\u003c", text)


def page(*, title: str, now: datetime, middle: str, scripts: str = "") -> bytes:
    """Return a whole page; `now` is the device's clock in Japan time."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="ja" lang="ja">
<head>
<meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
<title>{title}</title>
</head>

<body class="pc">
<div id="logo">&nbsp;</div>
<div id="page">
<div id="header">
	<div id="h_icon" class=h_icon>&nbsp;</div>
	<h1 id="h_title">{title}<span id="h_subtitle"></span></h1>
	<div id="h_datetime"></div>
	<script type="text/javascript">
		TimeInfoVariable = {{}};
		TimeInfoVariable.serverTime = '{_server_time(now)}';
	</script>
</div>
{middle}</div>

{scripts}</body>
</html>
""".encode()


def _server_time(now: datetime) -> str:
    values = (f"{now:%y}", *now.timetuple()[1:6], f"{now:%w}")
    return to_json(dict(zip(_CLOCK_KEYS, map(str, values), strict=True)))
