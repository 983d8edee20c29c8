"""Two settings pages: the list of the circuits, and the form that exports the SD card.

As in `pages`, these are pure functions.
"""

from collections.abc import Mapping
from datetime import datetime

from aiseg2_pipeline.simulator.household import GENERATOR_NAME
from aiseg2_pipeline.simulator.layout import page, to_json

# The script's strings contain HTML.
_MESSAGES = {"msg1": "<div class='l3_message'>名称を<br>読み込みますか。</div>"}


def circuit_list_page(now: datetime, names: Mapping[int, str]) -> bytes:
    """Return page 734: all 45 places of the distribution board, with the registered circuits' names (by id)."""
    main = {
        "strLabel": "主幹",
        "strId": "-",
        "strLocation": "-",
        "strCircuit": "",
        "strBtn": "0",
        "strBtnType": "-",
    }
    mains = [main | {"strCircuit": f"主幹L{phase}"} for phase in (1, 2)]
    places = [
        {
            "strId": str(place),
            "strCircuit": names.get(place, GENERATOR_NAME if place == 40 else ""),
            "strLabel": f"特{place + 1}" if place < 8 else f"分{place - 7}",
            "strBtn": "1" if place in names else "0",
            "strBtnType": "1" if place in names else "-",
        }
        for place in range(43)
    ]
    settings = {"popupmsg": _MESSAGES, "pageno": 1, "arrayCircuitNameList": mains + places}
    start = f'<script type="text/javascript">window.onload = init({to_json(settings)});</script>\n'
    middle = '<div id="main" class="wrap_set"></div>\n'
    return page(title="計測回路名称設定", now=now, middle=middle, scripts=start)


def settings_page(token: str) -> bytes:
    """Return exectop2.cgi, which has no XML declaration, upper-case attributes, and its form before the body."""
    names = ("top", "graph", "mall", "downType", "scrollmove", "pageNo", "demoMode", "csrftoken", "doReset")
    fields = dict.fromkeys(names, "0") | {"pageNo": "1", "csrftoken": token}
    inputs = " ".join(f'<input type="hidden" NAME="{name}" VALUE="{value}" />' for name, value in fields.items())
    return f"""<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta http-equiv="content-type" content="text/html; charset=UTF-8" />
<title></title>
</head>
<form name="set" method="post">
{inputs}</form>
<body>
<div id="logo">&nbsp;</div>
<div id="page" style="visibility:hidden;"></div>
</body>
</html>
""".encode()
