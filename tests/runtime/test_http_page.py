"""The files of the dashboard as they are served, and what the API tells for it alone."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import pytest

from balancer.web import PAGE_DIRECTORY
from common.model import Outcome, Reason, Verdict
from tests.runtime.asked_over_http import Yard

ROOT: Final = Path(__file__).parents[2]
PAGE_BYTES_MAX: Final = 64 * 1024
TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
FILES: Final = sorted(path.name for path in PAGE_DIRECTORY.iterdir())


def path_of(name: str) -> str:
    return "/" if name == "index.html" else f"/page/{name}"


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
async def test_each_file_is_served_with_its_type_and_a_strict_policy(tmp_path: Path, name: str) -> None:
    answer = await Yard(tmp_path).get(path_of(name))
    assert answer.content == (PAGE_DIRECTORY / name).read_bytes()
    assert answer.headers["content-type"].startswith(TYPES[name.rpartition(".")[2]])
    assert answer.headers.get_list("cache-control") == ["no-cache"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"


async def test_a_browser_that_has_a_file_already_is_not_sent_it_again(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    tag = (await yard.get("/page/main.js")).headers["etag"]
    for said in (tag, f"W/{tag}", f'"other", {tag}'):
        answer = await yard.get("/page/main.js", **{"if-none-match": said})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    for said in ('"other"', tag.strip('"'), "*x"):
        assert (await yard.get("/page/main.js", **{"if-none-match": said})).status_code == 200
    assert (await yard.get("/page/page.css")).headers["etag"] != tag


@pytest.mark.parametrize("path", ["/page", "/page/", "/page/index.html", "/page/../web.py", "/page/%2e%2e/web.py"])
async def test_nothing_else_is_served_as_a_file(tmp_path: Path, path: str) -> None:
    status, code, _ = await Yard(tmp_path).refused(path)
    assert (status, code) == (404, "NOT_FOUND")


@pytest.mark.parametrize("name", FILES)
async def test_the_files_need_no_token_and_what_they_show_does(tmp_path: Path, name: str) -> None:
    yard = Yard(tmp_path, token="secret")
    assert (await yard.get(path_of(name))).status_code == 200
    assert (await yard.refused("/api/v1/overview"))[0] == 401


async def test_a_page_of_another_site_that_points_its_name_here_gets_no_file_either(tmp_path: Path) -> None:
    status, code, _ = await Yard(tmp_path).refused("/", host="rebound.example.org")
    assert (status, code) == (403, "FORBIDDEN")


def test_all_that_the_files_name_is_there_and_of_this_host() -> None:
    for name in FILES:
        text = (PAGE_DIRECTORY / name).read_text()
        assert not re.findall(r"(?:https?:)?//[a-z][\w.]*\.", text.replace("http://www.w3.org/", "")), name
        for named in re.findall(r'(?:from "\./|"page/)([^"]+)"', text):
            assert named in FILES, f"{name} names {named}"


def test_there_is_no_script_in_the_markup_and_no_markup_in_the_scripts() -> None:
    markup = (PAGE_DIRECTORY / "index.html").read_text()
    assert re.findall(r"<script[^>]*>", markup) == ['<script type="module" src="page/main.js">']
    assert not re.search(r"\son\w+=|style=|<style|javascript:", markup)
    for name in FILES:
        if name.endswith(".js"):
            code = re.sub(r"//.*", "", (PAGE_DIRECTORY / name).read_text())
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", code), (
                name
            )


def test_the_files_are_few_kilobytes_and_lines_that_can_be_read() -> None:
    assert sum((PAGE_DIRECTORY / name).stat().st_size for name in FILES) < PAGE_BYTES_MAX
    for name in FILES:
        for line in (PAGE_DIRECTORY / name).read_text().splitlines():
            assert len(line) <= 120, f"{name}: {line}"


def test_every_file_is_in_the_wheel() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = told["tool"]["setuptools"]["package-data"]["balancer"]
    for name in FILES:
        assert any(fnmatch(f"page/{name}", pattern) for pattern in patterns), name


# --- what the API tells for it -----------------------------------------------------------------------------------


async def test_the_life_of_a_job_is_told_from_its_submission_and_of_no_other(tmp_path: Path) -> None:
    yard = Yard(tmp_path, slots=1)
    first, second = yard.cluster.submit("n1", "sh true"), yard.cluster.submit("n1", "sh false")
    yard.cluster.finish("n1", (first, 1))
    yard.cluster.finish("n1", (second, 1), outcome=Outcome(Verdict.FAILED, Reason.EXIT, exit=3))
    life = await yard.shown(f"/api/v1/jobs/{second.upper()}/events")
    assert life["whole"] is True
    assert {event["ticket"] for event in life["events"]} == {second}
    told = [event["event"].removeprefix("job.") for event in life["events"]]
    assert told == ["submitted", "queued", "dispatched", "running", "failed"]


async def test_a_life_whose_beginning_is_too_long_ago_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = Yard(tmp_path, slots=1)
    ticket = yard.cluster.submit("n1")
    for _ in range(40):
        yard.cluster.advance(1)
        yard.cluster.submit("n1")
    assert (await yard.shown(f"/api/v1/jobs/{ticket}/events"))["whole"] is True
    for limit, least in (("LIFE_BYTES_MAX", 1), ("LIFE_RECORDS_MAX", 16)):
        with monkeypatch.context() as patched:
            patched.setattr(f"balancer.chronicle.{limit}", least)
            assert (await yard.shown(f"/api/v1/jobs/{ticket}/events")) == {"events": [], "whole": False}


@pytest.mark.parametrize("ticket", ["nobody-1", "no ticket", '"', "%00"])
async def test_of_what_nobody_knows_nothing_is_told(tmp_path: Path, ticket: str) -> None:
    assert await Yard(tmp_path).shown(f"/api/v1/jobs/{ticket}/events") == {"events": [], "whole": False}
