"""A real browser on the dashboard: Chromium without a screen, and a cluster whose balancer serves HTTP at one address.

Rules: the browser is the system's own, and where there is none the test is skipped with that reason (or fails, where
everything has to be there). Each visit begins as a stranger's, with nothing remembered; at its end nothing may have
gone wrong in the browser's console, and nobody but the balancer may have been asked for anything.
"""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from examples.local_cluster import BALANCER, HOST, LocalCluster, _Member
from tests.system.client import missing, until

WAIT_MS: Final = 15_000
DESK: Final = (1120, 800)
PHONE: Final = (320, 640)
# A container has no place for Chromium's sandbox when it is root there; the rest keeps it from looking for its maker.
FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


class SeenCluster(LocalCluster):
    """Its balancer serves HTTP, and at the same port after each start, as an address that somebody has open must."""

    def __init__(self, *words: Any, **more: Any) -> None:
        super().__init__(*words, **more)
        self._http_port = _free_port()

    @property
    def site(self) -> str:
        return f"http://{HOST}:{self._http_port}"

    def _environment(self, member: _Member) -> dict[str, str]:
        listens = {"JOBYARD_HTTP_LISTEN": f"{HOST}:{self._http_port}"} if member.name == BALANCER else {}
        return super()._environment(member) | listens

    def wait_for_site(self) -> None:
        until(f"{self.site} answers", self._answers)

    def _answers(self) -> bool:
        with socket.socket() as tried:
            return tried.connect_ex((HOST, self._http_port)) == 0


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


@contextmanager
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        missing("there is no Chromium here (Debian: chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Visits:
    """Opens pages of a cluster, and watches what becomes of them."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[Any] = []
        self.told: list[str] = []  # in the console: warnings, errors, exceptions
        self.asked: set[str] = set()  # origins

    def open(
        self, url: str, *, size: tuple[int, int] = DESK, scheme: Literal["light", "dark"] = "light", still: bool = False
    ) -> Page:
        context = self._browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            reduced_motion="reduce" if still else "no-preference",
        )
        self._contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.told.append(f"exception: {error}"))
        page.on("request", lambda request: self.asked.add("/".join(request.url.split("/", 3)[:3])))
        page.goto(url)
        return page

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("warning", "error"):
            self.told.append(f"{message.type}: {message.text}")

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@contextmanager
def visits(browser: Browser, site: str, *, may_fail: str | None = None) -> Iterator[Visits]:
    """Inside the `with` pages are opened. `may_fail`: what the console may say, because the test makes it so."""
    opened = Visits(browser)
    try:
        yield opened
    finally:
        opened.close()
    assert opened.asked == {site}, "somebody else was asked"
    wrong = [line for line in opened.told if may_fail is None or may_fail not in line]
    assert not wrong, f"in the console: {wrong}"


# --- what every page has to be ---------------------------------------------------------------------------------------

CONTRAST_MIN: Final = 4.5  # WCAG 2.2, AA

_DIM_TEXTS: Final = """(least) => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const groundOf = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const ground = rgba(getComputedStyle(each).backgroundColor);
      if (ground[3] === 255) return ground;
    }
    return [255, 255, 255, 255];
  };
  const dim = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let looked = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const colour = element.closest('svg') ? style.fill : style.color;
    const [one, other] = [light(rgba(colour)), light(groundOf(element))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    looked += 1;
    if (contrast < least) dim.push(`${contrast.toFixed(2)} ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return [looked, dim];
}"""

_FLAWS: Final = """() => {
  const flaws = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  const want = (held, flaw) => held || flaws.push(flaw);
  const nameOf = (element) => (element.getAttribute('aria-label') || element.textContent ||
    [...(element.labels ?? [])].map((label) => label.textContent).join('')).trim();
  want(document.documentElement.lang, 'the page does not say its language');
  want(document.title, 'the page has no title');
  for (const landmark of ['header', 'main', 'footer', '[role=search]'])
    want(all(landmark).filter((each) => each.checkVisibility()).length === 1, `not one ${landmark}`);
  want(all('main h1').length === 1, `${all('main h1').length} h1 in main`);
  const levels = all('main h1, main h2, main h3').map((each) => Number(each.tagName[1]));
  want(levels.every((level, at) => at === 0 ? level === 1 : level <= levels[at - 1] + 1), `headings jump: ${levels}`);
  const ids = all('[id]').map((each) => each.id);
  want(new Set(ids).size === ids.length, `an id is there twice: ${ids}`);
  for (const each of all('[aria-labelledby], [aria-describedby]'))
    for (const id of [each.getAttribute('aria-labelledby'), each.getAttribute('aria-describedby')])
      want(!id || document.getElementById(id), `${id} labels something, and is not there`);
  for (const each of all('a[href], button, input'))
    want(nameOf(each), `without a name: ${each.outerHTML.slice(0, 80)}`);
  for (const each of all('img')) want(each.hasAttribute('alt'), 'an image has no alt');
  for (const each of all('main svg')) want(each.getAttribute('aria-hidden') === 'true', 'a drawing is read aloud');
  for (const table of all('table')) {
    want(table.querySelector('thead th[scope=col]'), 'a table has no headings');
    for (const row of table.tBodies[0].rows) want(row.cells[0].scope === 'row', 'a row has no heading');
  }
  for (const section of all('main > * section'))
    want(section.querySelector('h1, h2'), 'a section has no heading');
  const aloud = all('[role=status], [aria-live]').filter((each) => each.checkVisibility());
  want(aloud.length <= 2, `too much is said aloud: ${aloud.length}`);
  for (const each of all('[tabindex]')) want(each.tabIndex <= 0, 'the order of the tab key is not that of the page');
  for (const each of all('a, button, input').filter((each) => each.checkVisibility())) {
    const {width, height} = each.getBoundingClientRect();
    want(each.tagName === 'A' || (width >= 24 && height >= 24), `too small to be hit: ${nameOf(each)}`);
  }
  return flaws;
}"""


def assert_fit_for_all(page: Page) -> None:
    """Contrast, names, landmarks, headings, tables, and no sideways scrolling."""
    looked, dim = page.evaluate(_DIM_TEXTS, CONTRAST_MIN)
    assert looked > 10, "hardly any text was found"
    assert not dim, f"too dim: {dim}"
    assert page.evaluate(_FLAWS) == []
    width, room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= room, f"it scrolls sideways: {width} in {room} pixels"
