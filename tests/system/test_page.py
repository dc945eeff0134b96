"""The dashboard as somebody sees it: real Chromium, real balancer and nodes.

What every page has to be, whoever looks at it and on whatever, is in `tests/system/browser.py`, as is what no page may
do: complain in the console, or ask anybody but the balancer.
"""

import json
import re
from collections.abc import Iterator
from typing import Final, Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.system.browser import DESK, PHONE, WAIT_MS, SeenCluster, Visits, assert_fit_for_all, chromium, visits
from tests.system.client import ask, submit, until, wait
from tests.system.conftest import StartCluster

pytestmark = [pytest.mark.system]

GONE: Final = "ERR_"  # what the console says when the balancer cannot be reached
TOKEN: Final = "correct-horse-battery-staple"
MARKUP: Final = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
BACKWARDS: Final = "\u202egnp.exe"  # would be read as exe.png


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=WAIT_MS)
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def cluster(browser: Browser, start_cluster_of_module: StartCluster) -> SeenCluster:
    """Two nodes of two slots, which the tests of this module share. Each test leaves it idle."""
    return _seen(start_cluster_of_module(nodes=2, slots=2, cls=SeenCluster))


@pytest.fixture
def look(browser: Browser, cluster: SeenCluster) -> Iterator[Visits]:
    with visits(browser, cluster.site) as opened:
        yield opened


def _seen(cluster: object) -> SeenCluster:
    assert isinstance(cluster, SeenCluster)
    cluster.wait_for_site()
    return cluster


def _live(page: Page) -> None:
    expect(page.locator("#connection")).to_contain_text("live")


def _figure(page: Page, state: str) -> str:
    return page.locator(f'.figures div:has(a[href="#jobs/{state}"]) dd').inner_text()


def _failed(cluster: SeenCluster, text: str) -> str:
    """A job that has failed."""
    address = cluster.address("node1")
    ticket = submit(address, text)
    assert wait(address, ticket).field("state") == "failed"
    return ticket


# --- what it shows ---------------------------------------------------------------------------------------------------


def test_an_empty_cluster_says_what_is_missing(browser: Browser, start_cluster: StartCluster) -> None:
    cluster = _seen(start_cluster(nodes=0, cls=SeenCluster))
    with visits(browser, cluster.site) as look:
        page = look.open(cluster.site)
        _live(page)
        expect(page.locator(".verdict")).to_contain_text("No node has come yet. Start one: jobyard-node HOST PORT")
        expect(page.locator(".verdict")).not_to_contain_text("All is well")
        expect(page.locator(".verdict")).not_to_contain_text("Jobs are as it left them")  # there never were any
        expect(page.locator("main")).to_contain_text("No job has failed")
        expect(page.locator("table:visible")).to_have_count(0)
        assert_fit_for_all(page)


def test_a_busy_cluster_shows_what_runs_and_what_waits_on_each_node(cluster: SeenCluster, look: Visits) -> None:
    address = cluster.address("node1")
    page = look.open(cluster.site, still=True)
    _live(page)
    expect(page.locator(".verdict")).to_contain_text("All is well")
    tickets = [submit(address, "name=wide group=busy sleep 60s") for _ in range(6)]
    try:
        rows = page.locator("table.nodes tbody tr")
        expect(rows).to_have_count(2)
        for row in (rows.nth(0), rows.nth(1)):
            expect(row).to_contain_text("2 of 2 slots")
            expect(row).to_contain_text("1 · 0.5 per slot")
            full, half = (
                row.locator(f".bar.{kind} div").evaluate("bar => bar.style.width") for kind in ("running", "waiting")
            )
            assert (full, half) == ("100%", "50%")
        expect(page.locator(".verdict")).to_contain_text("4 of 4 slots busy")
        assert (_figure(page, "running"), _figure(page, "dispatched")) == ("4", "2")
        until("lines are drawn", lambda: len(page.locator("path.line.running").last.get_attribute("d") or "") > 20)
        page.get_by_role("link", name="running").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Jobs running")
        expect(page.locator("table.jobs tbody tr")).to_have_count(4)
        expect(page.locator("table.jobs")).to_contain_text("wide")
        assert_fit_for_all(page)
        page.get_by_role("link", name=tickets[0]).click()
        expect(page.locator(".timeline")).to_contain_text(
            re.compile("submitted.*queued.*dispatched.*running on node", re.S)
        )
    finally:
        assert ask(address, "cancel group=busy").ok
    expect(page.locator(".headline")).to_contain_text("cancelled")


def test_a_failure_leads_to_its_reason_its_life_and_its_output(cluster: SeenCluster, look: Visits) -> None:
    page = look.open(cluster.site)
    _live(page)
    ticket = _failed(cluster, "name=doomed retries=1 backoff=10ms sh echo no such file; echo why >&2; exit 3")
    row = page.locator("table.failures tbody tr", has_text=ticket)
    expect(row).to_contain_text("exit code 3")
    expect(row).to_contain_text("doomed")  # which the stream does not tell
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Job {ticket}")
    assert page.title() == f"{ticket} – Jobyard"
    expect(page.locator(".headline")).to_contain_text("failed · exit code 3")
    expect(page.locator(".why")).to_have_text(f"{ticket} failed: it ended with an exit code that is not 0.")
    expect(page.locator("dl.facts").first).to_contain_text("RETRY queues it again")
    life = page.locator(".timeline li .what b").all_inner_texts()
    again = ["dispatched", "running"]
    assert life == ["submitted", "queued", *again, "retrying", "queued", *again, "failed"]
    expect(page.locator(".timeline")).to_contain_text("attempt 2")
    expect(page.locator("table.attempts tbody tr")).to_have_count(2)
    expect(page.get_by_role("region", name="Standard output")).to_have_text("no such file\n")
    expect(page.get_by_role("region", name="Standard error")).to_have_text("why\n")
    assert_fit_for_all(page)


def test_an_array_leads_to_its_elements(cluster: SeenCluster, look: Visits) -> None:
    address = cluster.address("node1")
    ticket = submit(address, "array=3-5 sh echo element")
    wait(address, ticket)
    page = look.open(f"{cluster.site}/#job/{ticket}")
    expect(page.locator(".headline")).to_contain_text("array of 3 jobs: 3 succeeded")
    expect(page.locator(".why")).to_have_text(re.compile(r"succeeded: .* returned\."))  # wrapped for terminals
    assert_fit_for_all(page)
    page.get_by_role("link", name=f"{ticket}_3").click()
    expect(page.get_by_role("region", name="Standard output")).to_have_text("element\n")


def test_jobs_of_a_state_are_shown_page_by_page_and_the_first_is_kept_true(cluster: SeenCluster, look: Visits) -> None:
    address = cluster.address("node1")
    for _ in range(60):
        submit(address, "group=later delay=10m sh true")
    page = look.open(f"{cluster.site}/#jobs/scheduled")
    rows = page.locator("table.jobs tbody tr")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("delayed")
    newest = submit(address, "group=later name=newest delay=10m sh true")
    expect(rows.first).to_contain_text(newest)
    assert_fit_for_all(page)
    page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(61)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    assert ask(address, "cancel group=later").ok
    page.goto(f"{cluster.site}/#jobs/running")
    expect(page.locator("main")).to_contain_text("There are none.")


def test_many_failures_are_no_good_state(cluster: SeenCluster, look: Visits) -> None:
    for _ in range(4):
        _failed(cluster, "sh exit 1")
    page = look.open(cluster.site)
    expect(page.locator(".verdict")).to_contain_text("that ended in the last minute failed")
    expect(page.locator(".verdict")).not_to_contain_text("All is well")


def test_a_job_that_nobody_knows_is_said_so(browser: Browser, cluster: SeenCluster) -> None:
    with visits(browser, cluster.site, may_fail="404") as look:
        for ticket in ("nobody-1", "a/b?c#d%", "x" * 100):
            page = look.open(cluster.site)
            _live(page)
            page.get_by_label("Ticket").fill(ticket)
            page.get_by_role("button", name="Find").click()
            expect(page.get_by_role("alert").filter(visible=True)).to_be_visible()
            assert_fit_for_all(page)


# --- the balancer goes, and comes back -------------------------------------------------------------------------------


def test_a_balancer_that_is_gone_is_seen_and_so_is_its_return(browser: Browser, start_cluster: StartCluster) -> None:
    cluster = _seen(start_cluster(nodes=1, slots=1, cls=SeenCluster))
    ticket = _failed(cluster, "name=before sh exit 7")
    with visits(browser, cluster.site, may_fail=GONE) as look:
        page = look.open(cluster.site)
        expect(page.locator("table.failures")).to_contain_text(ticket)
        cluster.kill("balancer")
        expect(page.locator("#connection")).to_have_text(
            re.compile(r"not connected since \d\d:\d\d:\d\d; trying again")
        )
        assert page.locator("body").evaluate("body => body.classList.contains('stale')")
        expect(page.locator(".verdict")).to_contain_text("No connection to the balancer since")
        expect(page.locator(".verdict")).not_to_contain_text("All is well")
        expect(page.locator("table.failures")).to_contain_text(ticket)  # what was known stays in sight
        assert_fit_for_all(page)
        cluster.start("balancer")
        expect(page.locator("#connection")).to_have_text(re.compile(r"live; started at \d\d:\d\d:\d\d"), timeout=30_000)
        assert not page.locator("body").evaluate("body => body.classList.contains('stale')")
        expect(page.locator(".verdict")).to_contain_text("The balancer was started")
        expect(page.locator("table.nodes")).to_contain_text("alive")
        assert _figure(page, "failed") == "0"  # counted anew, and what failed before is still told
        stranger = look.open(cluster.site)
        expect(stranger.locator("table.failures")).to_contain_text("before")
        expect(stranger.locator("table.failures")).to_contain_text("exit code 7")


def test_who_does_not_look_is_sent_nothing(cluster: SeenCluster, look: Visits) -> None:
    page = look.open(cluster.site)
    _live(page)
    ended: list[str] = []
    page.on("requestfailed", lambda request: ended.append(request.url))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    seem = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); \
        document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(seem, True)
    page.wait_for_timeout(2_500)
    assert (ended, asked) == ([f"{cluster.site}/api/v1/stream"], [])
    page.evaluate(seem, False)
    _live(page)
    until("it follows again", lambda: page.wait_for_timeout(50) or f"{cluster.site}/api/v1/stream" in asked)


# --- whoever writes jobs is no friend --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_what_jobs_name_and_print_is_text_and_nothing_else(
    cluster: SeenCluster, look: Visits, size: tuple[int, int]
) -> None:
    name = _escaped(f"{MARKUP.replace(' ', '/')}{'W' * 60}")
    long = "long" * 200
    said = [MARKUP, f"{BACKWARDS}\x1b[31mred\a", long]
    code = f"import sys; print(*{said!r}, sep=chr(10)); sys.exit(9)"
    ticket = _failed(cluster, f"name={name} argv {json.dumps(['python3', '-c', code])}")
    page = look.open(cluster.site, size=size)
    row = page.locator("table.failures tbody tr", has_text=ticket)
    expect(row).to_contain_text("<script>window.pwned=1</script>")
    assert_fit_for_all(page)
    row.get_by_role("link").click()
    shown = page.get_by_role("region", name="Standard output")
    expect(shown).to_contain_text(MARKUP)
    expect(shown).to_contain_text("\\u202egnp.exe")
    expect(shown).to_contain_text("red\\u0007")
    expect(page.locator("code.command")).to_contain_text("<script>")
    assert "\u202e" not in page.locator("body").inner_text()
    assert page.evaluate("window.pwned") is None
    assert page.locator("main script, main img").count() == 0
    assert_fit_for_all(page)


def test_a_command_cannot_be_made_to_read_as_another(cluster: SeenCluster, look: Visits) -> None:
    ticket = _failed(cluster, f"sh : {BACKWARDS} \u200b\u2066; exit 9")
    page = look.open(f"{cluster.site}/#job/{ticket}")
    expect(page.locator("code.command")).to_contain_text(": \\u202egnp.exe \\u200b\\u2066; exit 9")
    assert not set("\u202e\u200b\u2066") & set(page.locator("body").inner_text())


def _escaped(text: str) -> str:
    return "".join(
        letter if letter.isalnum() else "".join(f"%{byte:02X}" for byte in letter.encode()) for letter in text
    )


def test_markup_could_not_be_made_if_one_wanted_to(cluster: SeenCluster, browser: Browser) -> None:
    with visits(browser, cluster.site, may_fail="") as look:
        page = look.open(cluster.site)
        _live(page)
        with pytest.raises(Exception, match="TrustedHTML"):
            page.evaluate("document.body.innerHTML = '<b>bold</b>'")


# --- whoever looks, and on whatever ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_view_fits_small_screens_and_both_schemes(
    cluster: SeenCluster, look: Visits, size: tuple[int, int], scheme: Literal["light", "dark"]
) -> None:
    ticket = _failed(cluster, "name=render-the-whole-of-it timeout=100ms sh echo begun; sleep 30")
    page = look.open(cluster.site, size=size, scheme=scheme)
    expect(page.locator("table.failures")).to_contain_text(ticket)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 384) == (scheme == "light"), ground
    assert_fit_for_all(page)
    for address, shown in ((f"#job/{ticket}", ".timeline"), ("#jobs/failed", "table.jobs")):
        page.evaluate("address => { location.hash = address; }", address)
        expect(page.locator(shown)).to_be_visible()
        assert_fit_for_all(page)


def test_a_ticket_is_found_by_the_keyboard_alone(cluster: SeenCluster, look: Visits) -> None:
    ticket = _failed(cluster, "sh exit 2")
    page = look.open(cluster.site)
    _live(page)
    page.keyboard.press("Tab")
    expect(page.locator("#skip")).to_be_focused()
    expect(page.locator("#skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Shift+Tab")  # from the content back to what is before it
    expect(page.get_by_role("button", name="Find")).to_be_focused()
    _assert_focus_is_seen(page)
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_label("Ticket")).to_be_focused()
    _assert_focus_is_seen(page)
    page.keyboard.type(f" {ticket.upper()} ")
    page.keyboard.press("Enter")
    expect(page.locator(".why")).to_contain_text("exit code that is not 0")
    expect(page.locator("main")).to_be_focused()  # so that reading goes on there
    page.go_back()
    expect(page.locator("table.nodes")).to_be_visible()
    for _ in range(3):
        page.keyboard.press("Tab")
        _assert_focus_is_seen(page)


def _assert_focus_is_seen(page: Page) -> None:
    style, width = page.evaluate(
        "() => { const seen = getComputedStyle(document.activeElement); "
        "return [seen.outlineStyle, parseFloat(seen.outlineWidth)]; }"
    )
    assert style != "none"
    assert width >= 2


def test_what_is_in_focus_stays_so_while_numbers_change(cluster: SeenCluster, look: Visits) -> None:
    _failed(cluster, "sh exit 1")
    page = look.open(cluster.site)
    link = page.locator("table.failures a").first
    ticket = link.inner_text()
    link.focus()
    other = _failed(cluster, "name=later sh exit 1")
    expect(page.locator("table.failures")).to_contain_text(other)
    expect(page.locator("table.failures")).to_contain_text("later")
    expect(page.get_by_role("link", name=ticket, exact=True)).to_be_focused()


def test_nothing_moves_for_whom_motion_is_too_much(cluster: SeenCluster, look: Visits) -> None:
    moves = "getComputedStyle(document.querySelector('.nodes .bar div')).transitionDuration"
    for still, seconds in ((True, "0s"), (False, "0.4s")):
        page = look.open(cluster.site, still=still)
        _live(page)
        assert page.evaluate(moves) == seconds


# --- a cluster with a token ------------------------------------------------------------------------------------------


def test_a_token_is_asked_for_kept_in_the_tab_and_sent_as_a_header(
    browser: Browser, start_cluster: StartCluster
) -> None:
    cluster = _seen(start_cluster(nodes=1, cls=SeenCluster, env={"JOBYARD_CLIENT_TOKEN": TOKEN}))
    with visits(browser, cluster.site, may_fail="401") as look:
        page = look.open(cluster.site)
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        expect(page.locator("#token")).to_be_focused()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_have_text("The cluster does not know this token.")
        page.locator("#token").fill(TOKEN)
        page.get_by_role("button", name="Use it").click()
        expect(dialog).to_be_hidden()
        expect(page.locator("table.nodes")).to_contain_text("node1")
        assert not any("horse" in url for url in urls)
        page.reload()
        expect(page.locator("table.nodes")).to_contain_text("node1")  # the tab knows it
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.get_by_role("button", name="Forget the token").click()
        expect(dialog).to_be_visible()
