"""The frame of every page: head, footer, header with the clock, closing scripts.

Ids, classes, their order and the quirks (XML declaration, `&nbsp;`, unquoted attributes: not well-formed XML) are
those of a real device. The content of a page belongs in `pages`, `settings_pages`, `rooms` and `graphs`.
"""

import json
import re
from datetime import datetime
from typing import Any

VERSION = "Ver.2.97I-01"

_ENDS_SCRIPT = re.compile("<(?=/script|!--)", re.IGNORECASE)
_CLOCK_KEYS = ("year", "month", "day", "hour", "min", "sec", "weekday")
_FOOTER_MENU = (
    ("00", "/page/myhome/9"),
    ("01", "/page/electricflow/111"),
    ("05", "/page/graph/52111"),
    ("02", "/page/smartmeter/2"),
    ("06", "/page/notice/63"),
    ("07", "/page/setting/initial/71"),
)


def to_json(value: Any) -> str:
    """Return JSON as in the device's scripts: no spaces, no escapes except where text would end the script."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _ENDS_SCRIPT.sub(r"\\u003c", text)


def script(name: str) -> str:
    """Return the element that loads one of the device's scripts."""
    return f'<script type="text/javascript" src="/contents/{VERSION}/javascripts/{name}.js"></script>\n'


def page(
    *, title: str, icon: int, back: str, now: datetime, middle: str, scripts: str, breadcrumbs: str = ""
) -> bytes:
    """Return a whole page; `now` is the device's clock in Japan time."""
    menu = "".join(
        f'<div id="fmbtn_{number}" class="fmbtn"><a href="{href}" class="fmhit">&nbsp;</a></div>\t\t'
        for number, href in _FOOTER_MENU
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="ja" lang="ja">
<head>
<meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
<meta name="viewport" content="width=800" />
<link href="/contents/{VERSION}/stylesheets/common.css" rel="stylesheet" type="text/css" />
<title>{title}</title>
</head>

<body class="pc">
<div id="logo">&nbsp;</div>
<div class="wrap">
<div id="page">

<div id="foot_shadow"></div>
<div id="fmenu">
	<div id="fmbtn_wrapper" class="btn_cnt6">
		{menu}</div>
</div>
<div id="footer">
	<div id="footer_back" class="footer_button"><a href="{back}" id="back_button">戻る</a></div>
	<div id="footer_menu" class="footer_button "><a href="javascript:void(0);" id="menu_button">メニュー</a></div>
	<div id="footer_info" class="footer_info no_info">&nbsp;</div>
	<div id="footer_copyright" class="footer_copyright">&nbsp;</div>
	<div id="pvlimit_label" class="button "style="display:none;">
		<div id="pvlimit_label_text"></div>
		<a href="/page/common/01i" class="hit">&nbsp;</a>
	</div>
</div>

<div class="contents">
<div id="header">
	<div id="h_icon" class=h_icon-{icon}>&nbsp;</div>
	<h1 id="h_title">{title}<span id="h_subtitle"></span></h1>
	<ul id="h_breadcrumbs" class="breadcrumbs">{breadcrumbs}</ul>
	<div id="h_datetime"></div>
	<script type="text/javascript">
		TimeInfoVariable = {{}};
		TimeInfoVariable.serverTime = '{_server_time(now)}';
	</script>
</div>
{middle}
	<div id="hitLayer">
		<img id="hitObject" src="/contents/{VERSION}/images/spacer.png" width="800" height="330" alt="" />
	</div>
</div>
</div>

{script("device")}{scripts}{script("time")}</body>
</html>
""".encode()


def breadcrumb(name: str, href: str | None = None) -> str:
    """Return one breadcrumb; the last one, the page itself, has no `href`."""
    if href is None:
        return f'<li class="h_bitem"><span>{name}</span></li>\n'
    return f'<li class="h_bitem"><a href="{href}">{name}</a><span>&nbsp;＞</span></li>\n'


def _server_time(now: datetime) -> str:
    values = (f"{now:%y}", *now.timetuple()[1:6], f"{now:%w}")
    return to_json(dict(zip(_CLOCK_KEYS, map(str, values), strict=True)))
