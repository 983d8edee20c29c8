"""What a household sees: the page in a real browser, with real stores, and where it matters a device."""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, Position, expect

from aiseg2_pipeline.aiseg2.errors import Aiseg2Error
from aiseg2_pipeline.japan_time import DAY, HOUR, day_of, day_start
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import incidents
from aiseg2_pipeline_tests.support import browser
from aiseg2_pipeline_tests.support.device import FLOW, PASSWORD, flow_json, serving
from aiseg2_pipeline_tests.support.page import served, settings_of, store_energy

MINUTE = browser.MINUTE
# Its first minute is 8:00 on the day before, its now 8:30.
NOW = datetime(2026, 11, 25, 23, 30, 20, tzinfo=UTC)
TODAY = day_start(day_of(NOW))
YESTERDAY = TODAY - DAY
FILLED, MISSING = YESTERDAY + 10 * HOUR, YESTERDAY + 14 * HOUR
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(2)'>",
    "\u202eמסוכן\u202c & \u200fエアコン",
    "' onclick='alert(3)",
)
DEVICE = {"AISEG2_HOST": "127.0.0.1:9", "AISEG2_PASSWORD": PASSWORD, "AISEG2_PAGE_LIVE": "0"}
TABS = ("/", "/day/2026-11-25", "/month/2026-11", "/year/2026", "/record")
LOGIN = "AISEG2_PAGE_PASSWORD"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.chromium() as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A record of a day and a half with a filled hour, a missing one, and hostile names."""
    settings = settings_of(tmp_path_factory.mktemp("home"), DEVICE)
    circuits = dict(zip(HOSTILE, (900.0, 600.0, 300.0, 100.0), strict=True))
    browser.store_minutes(settings, YESTERDAY + 8 * HOUR, 120, circuits=circuits)
    browser.store_minutes(settings, FILLED, 60, interval_s=3600)
    browser.store_minutes(settings, FILLED + HOUR, 180, circuits=circuits)
    browser.store_minutes(settings, MISSING + HOUR, 60 * 9 + 510, circuits=circuits)
    return settings


@pytest.fixture(scope="module")
def url(home: Settings) -> Iterator[str]:
    with browser.served(home, lambda: NOW) as address:
        yield address


@pytest.fixture
def visit(chromium: Browser, url: str) -> Iterator[browser.Visit]:
    with browser.visit(chromium, url) as visited:
        visited.page.clock.install(time=NOW)
        yield visited
        assert visited.errors == []
        assert visited.hosts == {browser.HOST}


def test_now_follows_the_device_within_twelve_seconds(chromium: Browser, tmp_path: Path) -> None:
    with serving({FLOW: flow_json(g_capacity="0.0", u_capacity="1.2")}) as device:
        environment = {"AISEG2_HOST": device.address.removeprefix("http://"), "AISEG2_PASSWORD": PASSWORD}
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        (folder := tmp_path / "data").mkdir()
        browser.store_minutes(settings_of(folder, environment), now, 1, kw=0.5)
        with (
            served(folder, environment) as web,
            browser.visit(chromium, web.url, phone=True) as visited,
        ):
            used = visited.open("/").locator("#node-home .number")
            expect(used).to_have_text("1.20", timeout=12_000)
            device.pages[FLOW] = flow_json(g_capacity="0.0", u_capacity="3.4")
            expect(used).to_have_text("3.40", timeout=12_000)
            expect(visited.page.locator("#sentence")).to_contain_text("いま 3.40 kW 使用")
            # A hidden page asks for nothing.
            visited.page.evaluate("Object.defineProperty(document, 'visibilityState', {value: 'hidden'})")
            visited.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            visited.page.wait_for_timeout(1000)
            before = device.requests
            visited.page.wait_for_timeout(7000)
            assert device.requests == before


# The share of a stretch's pixels in the full colour, from its start on, at a height between 0 (bottom) and 1.
PIXELS = """([start, end, height]) => {
    const canvas = document.querySelector("#chart canvas"), box = document.querySelector("#chart .u-over");
    const wrap = canvas.getBoundingClientRect(), plot = box.getBoundingClientRect(), scale = canvas.width / wrap.width;
    const x = (s) => Math.round((plot.left - wrap.left + plot.width * s / 86400) * scale);
    const y = Math.round((plot.top - wrap.top + plot.height * (1 - height)) * scale);
    const pixels = canvas.getContext("2d").getImageData(x(start) + 3, y, x(end) - x(start) - 6, 1).data;
    const counts = {};
    for (let i = 0; i < pixels.length; i += 4) {
        const name = [pixels[i], pixels[i + 1], pixels[i + 2]].join(" ");
        counts[name] = (counts[name] ?? 0) + 4 / pixels.length;
    }
    return counts;
}"""
BOUGHT, FOOT = "0 114 178", "127 134 142"


def test_a_filled_hour_is_hatched_and_a_missing_one_is_a_gap_with_a_foot(visit: browser.Visit) -> None:
    page = visit.open("/day/2026-11-25")

    def share(hour: int, colour: str, height: float = 0.3) -> float:
        counts: dict[str, float] = page.evaluate(PIXELS, [hour * 3600, (hour + 1) * 3600, height])
        return counts.get(colour, 0.0)

    assert share(12, BOUGHT) > 0.95
    assert 0.1 < share(10, BOUGHT) < 0.6
    assert share(14, BOUGHT) == 0
    assert share(14, FOOT, 0.005) > 0.95
    assert share(12, FOOT, 0.005) == 0
    assert "補完(1時間の平均)" in visit.text("#legend")
    assert "欠測" in visit.text("#legend")
    page.locator("#chart").focus()
    for hour, said in ((12, "2.00 kW"), (10, "補完(1時間の平均)"), (14, "欠測")):
        page.locator("#chart .u-over").hover(position=_at(page, hour + 0.5))
        expect(page.locator("#readout")).to_contain_text(f"{hour}:")
        expect(page.locator("#readout")).to_contain_text(said)


def _at(page: Page, hour: float) -> Position:
    box = page.locator("#chart .u-over").bounding_box()
    assert box is not None
    return {"x": box["width"] * hour / 24, "y": box["height"] / 2}


@pytest.mark.parametrize("language", ["ja-JP", "en-GB"])
def test_a_silent_device_is_said_with_its_time(chromium: Browser, tmp_path: Path, language: str) -> None:
    settings = settings_of(tmp_path, DEVICE)
    browser.store_minutes(settings, NOW - 20 * MINUTE, 10)
    incidents.note(tmp_path, incidents.DEVICE, Aiseg2Error("192.0.2.7 did not answer."), NOW - 9 * MINUTE)
    incidents.note(tmp_path, incidents.DEVICE, Aiseg2Error("192.0.2.7 did not answer."), NOW)
    said = {
        "ja-JP": ("応答なし 08:21から", "AiSEG2 が応答していません(08:21から)"),
        "en-GB": ("No answer since 08:21", "The AiSEG2 has not answered since 08:21"),
    }
    with browser.served(settings, lambda: NOW) as url, browser.visit(chromium, url, language) as visited:
        visited.page.clock.install(time=NOW)
        visited.open("/")
        chip, notice = said[language]
        assert visited.text("#age") == chip
        assert notice in visited.text("#notice")
        assert "192.0.2.7 did not answer." in visited.text("#notice")
        assert "stale" in (visited.page.get_attribute("body", "class") or "")


def test_a_stopped_pipeline_is_said_and_its_numbers_are_not_shown_as_fresh(
    chromium: Browser, home: Settings
) -> None:
    clock = [NOW]
    with browser.served(home, lambda: clock[0]) as url, browser.visit(chromium, url) as visited:
        clock[0] += 10 * MINUTE
        visited.page.clock.install(time=clock[0])
        visited.open("/")
        assert "停止 08:29から" in visited.text("#age")
        assert "計測が止まっています(08:29から)。aiseg2-pipeline doctor で確認してください。" in visited.text(
            "#notice"
        )
        assert visited.text("#sentence").startswith("最後の値(08:29): 2.00 kW 使用")
        assert "stale" in (visited.page.get_attribute("body", "class") or "")


def test_a_page_without_its_server_says_so(chromium: Browser, home: Settings) -> None:
    with browser.visit(chromium, "") as visited:
        with browser.served(home, lambda: NOW) as url:
            visited.page.clock.install(time=NOW - timedelta(seconds=1))
            # Otherwise it goes on while the page opens.
            visited.page.clock.pause_at(NOW)
            visited.url = url
            visited.open("/")
            assert visited.text("#age") == "80秒前"
        visited.page.clock.run_for(7000)
        expect(visited.page.locator("#age")).to_have_text("更新できません")
        expect(visited.page.locator("#notice")).to_contain_text("この画面を更新できません")


def test_hostile_names_are_text(visit: browser.Visit) -> None:
    page = visit.open("/")
    assert page.locator("#circuits .label").all_text_contents() == list(HOSTILE)
    page.locator("#circuits a").first.click()
    page.wait_for_load_state("networkidle")
    assert f"{HOSTILE[0]} の1日" in visit.text("#chart-title")
    assert HOSTILE[0] in visit.text("#legend")
    page = visit.open("/day/2026-11-25")
    page.locator("#stacked-choice").click()
    expect(page.locator("#legend")).to_contain_text(HOSTILE[1])
    assert page.locator("main script, main img").count() == 0


def test_nothing_of_the_page_can_change_anything(chromium: Browser, home: Settings, url: str) -> None:
    before = _contents(home.data_dir)
    with browser.visit(chromium, url) as visited:
        visited.page.clock.install(time=NOW)
        for path in TABS:
            visited.open(path)
        # Nothing that a person can press sends anything.
        assert visited.page.locator("form").count() == 0
    for path in (*TABS, "/manifest.webmanifest", "/api/v1/now", "/api/v1/energy", "/api/v1/record"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = requests.request(method, url + path, timeout=browser.WITHIN_S)
            assert answer.status_code == requests.codes.method_not_allowed, (method, path)
    assert _contents(home.data_dir) == before


def _contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite-shm")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("path", TABS)
@pytest.mark.parametrize("phone", [True, False], ids=["phone", "desktop"])
def test_everyone_can_use_every_tab(chromium: Browser, url: str, path: str, phone: bool) -> None:  # noqa: FBT001 - a parameter
    source = browser.axe_source()
    with browser.visit(chromium, url, "en-GB" if phone else "ja-JP", phone=phone) as visited:
        page = visited.page
        page.clock.install(time=NOW)
        visited.open(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the screen"
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.evaluate(source)
            found = page.evaluate("axe.run().then((found) => found.violations)")
            serious = [
                (one["id"], [node["html"][:120] for node in one["nodes"][:3]])
                for one in found
                if one["impact"] in {"serious", "critical"}
            ]
            assert serious == [], theme
        assert visited.errors == []
        assert visited.hosts == {browser.HOST}


def test_a_day_before_the_record_says_when_it_begins(visit: browser.Visit) -> None:
    page = visit.open("/day/2026-01-02")
    assert "この日の記録はありません。記録は2026年11月25日(水)から始まっています。" in visit.text("#empty")
    page.get_by_role("link", name="最初の日を開く").click()
    page.wait_for_load_state("networkidle")
    assert visit.text("h1") == "11月25日(水)"
    assert "電力量はまだありません" in visit.text("#figures")


def test_energy_from_before_the_record_of_minutes_is_shown(chromium: Browser, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, DEVICE)
    browser.store_minutes(settings, NOW - 20 * MINUTE, 20)
    day = TODAY - 40 * DAY
    store_energy(tmp_path, [day + n * HOUR for n in range(24)], consumption=1000.0, bought=1000.0)
    with browser.served(settings, lambda: NOW) as url, browser.visit(chromium, url) as visited:
        visited.page.clock.install(time=NOW)
        for path in ("/month/2026-10", "/day/2026-10-17"):
            visited.open(path)
            assert "24.0" in visited.text("#figures"), path


def test_the_record_says_what_is_missing_and_shows_the_hours_of_a_day(visit: browser.Visit) -> None:
    page = visit.open("/record")
    assert "2026年11月25日(水)から記録しています。欠測は合わせて1時間" in visit.text("#sentences")
    page.locator("#calendar svg").first.focus()
    page.keyboard.press("ArrowUp")
    expect(page.locator("#hours-title")).to_have_text("2026年11月25日(水)の24時間")
    expect(page.locator("#split")).to_have_text("計測 14時間 · 補完 1時間 · 欠測 1時間")
    expect(page.locator("#hours rect.missing")).to_have_count(1)
    expect(page.locator("#hours rect.filled")).to_have_count(1)


def test_a_page_with_a_password_asks_for_it_once(chromium: Browser, home: Settings) -> None:
    settings = Settings.from_environment({"AISEG2_DATA_DIR": str(home.data_dir), **DEVICE, LOGIN: "open sesame"})
    with browser.served(settings, lambda: NOW) as url, browser.visit(chromium, url) as visited:
        visited.page.clock.install(time=NOW)
        page = visited.open("/day/2026-11-25")
        page.get_by_label("パスワード").fill("wrong password")
        page.get_by_role("button", name="開く").click()
        expect(page.get_by_role("alert")).to_have_text("パスワードが違います。")
        page.get_by_label("パスワード").fill("open sesame")
        page.get_by_role("button", name="開く").click()
        expect(page.locator("h1")).to_have_text("11月25日(水)")
        assert re.search(r"/day/2026-11-25$", page.url)
