"""The JSON API: what it answers, that its description is true, whom it refuses, and in which words."""

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import jsonschema
import pytest
import trio
import trio.testing

from balancer.openapi import DOCUMENT
from balancer.web import OUTPUT_BYTES_DEFAULT, Api, Snapshots
from common.model import Outcome, Reason, State, Verdict
from common.runtime.asking import WAIT_S, TooSlow
from common.runtime.http_side import Site
from common.runtime.pulse import write_pulse
from common.runtime.web import REQUESTS_MAX
from tests.machines.cluster import Cluster
from tests.runtime.asked_over_http import Yard

FAILED: Final = Outcome(Verdict.FAILED, Reason.EXIT, exit=3, seconds=0.25)


def tickets(page: Mapping[str, Any]) -> list[str]:
    return [job["ticket"] for job in page["jobs"]]


async def all_pages(yard: Yard, path: str) -> list[str]:
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await yard.shown(f"{path}{'&' if '?' in path else '?'}limit=3{f'&cursor={cursor}' if cursor else ''}")
        assert len(page["jobs"]) <= 3
        found += tickets(page)
        cursor = page["cursor"]
    return found


# --- jobs --------------------------------------------------------------------------------------------------------


async def test_pages_tell_every_job_once_the_newest_first_and_live_ones_before_ended_ones(tmp_path: Path) -> None:
    yard = Yard(tmp_path, slots=1)
    ended = [yard.cluster.submit("n1") for _ in range(5)]
    for ticket in ended:
        yard.cluster.advance(1)
        yard.cluster.finish("n1", (ticket, 1))
    live = [yard.cluster.submit("n1") for _ in range(7)]
    assert await all_pages(yard, "/api/v1/jobs") == [*reversed(live), *reversed(ended)]


async def test_a_job_that_ends_between_two_pages_is_not_missed(tmp_path: Path) -> None:
    yard = Yard(tmp_path, slots=1)
    jobs = [yard.cluster.submit("n1") for _ in range(6)]
    first = await yard.shown("/api/v1/jobs?limit=3")
    yard.cluster.finish("n1", (jobs[0], 1))
    rest = await yard.shown(f"/api/v1/jobs?limit=10&cursor={first['cursor']}")
    assert sorted(tickets(first) + tickets(rest)) == sorted(jobs)


async def test_jobs_that_rest_on_disk_are_told_as_those_in_memory(tmp_path: Path) -> None:
    yard = Yard(tmp_path, nodes=1, slots=0, awake_max=2)
    jobs = [yard.cluster.submit("n1", "group=g sh true") for _ in range(8)]
    for path in ("/api/v1/jobs", "/api/v1/jobs?state=queued", "/api/v1/jobs?group=g"):
        assert await all_pages(yard, path) == jobs[::-1]
    assert await all_pages(yard, "/api/v1/jobs?state=running") == []


@pytest.mark.parametrize("delayed", [1, 40])
async def test_a_page_of_one_state_holds_those_of_all_pages_that_are_in_it(tmp_path: Path, delayed: int) -> None:
    """Few of them are sought among those in memory; where they are most, all are gone through."""
    yard = Yard(tmp_path, nodes=1, slots=3)
    running = yard.cluster.submit("n1", "array=1-2 sh true")
    cancelled = yard.cluster.submit("n1", "array=1-9 sh true")
    yard.cluster.say("n1", f"cancel {cancelled}")
    for _ in range(delayed):
        yard.cluster.submit("n1", "delay=1h sh true")
    yard.cluster.submit("n1", f"after={running} sh true")
    for _ in range(3):
        yard.cluster.submit("n1", "slots=9 sh true")
    rows = (await yard.shown("/api/v1/jobs?limit=1000"))["jobs"]
    assert {row["state"] for row in rows} >= {"running", "cancelled", "scheduled", "blocked", "queued"}
    for state in State:
        wanted = [row["ticket"] for row in rows if row["state"] == state]
        assert await all_pages(yard, f"/api/v1/jobs?state={state}") == wanted, state


async def test_a_page_of_a_state_in_which_nobody_is_looks_at_nobody(tmp_path: Path) -> None:
    class Unlooked(dict[str, Any]):
        def values(self) -> Any:
            raise AssertionError("a million may be there")

    yard = Yard(tmp_path, nodes=1, slots=0)
    yard.cluster.submit("n1", "delay=1h sh true")
    yard.machine.check = lambda: None  # type: ignore[method-assign]
    yard.machine._ledger.all.awake = Unlooked(yard.machine._ledger.all.awake)
    assert await all_pages(yard, "/api/v1/jobs?state=running") == []


async def test_a_page_that_had_to_look_at_too_much_is_short_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancer.views.LIST_SCAN_MAX", 4)
    yard = Yard(tmp_path, slots=1)
    jobs = [yard.cluster.submit("n1") for _ in range(10)]
    for ticket in jobs:
        yard.cluster.advance(1)
        yard.cluster.finish("n1", (ticket, 1), outcome=FAILED if ticket == jobs[0] else None)
    first = await yard.shown("/api/v1/jobs?state=failed")
    assert (first["jobs"], first["cursor"] is None) == ([], False)
    assert await all_pages(yard, "/api/v1/jobs?state=failed") == jobs[:1]


async def test_pages_of_what_is_not_queued_go_on_too(tmp_path: Path) -> None:
    yard = Yard(tmp_path, slots=8)
    jobs = [yard.cluster.submit("n1") for _ in range(8)]
    assert await all_pages(yard, "/api/v1/jobs?state=running") == jobs[::-1]


async def test_state_and_group_choose_among_jobs(tmp_path: Path) -> None:
    yard = Yard(tmp_path, slots=2)
    inside = [yard.cluster.submit("n1", "group=g sh true") for _ in range(5)]
    outside = yard.cluster.submit("n1")
    for ticket in inside[:4]:
        yard.cluster.finish("n1", (ticket, 1), outcome=FAILED)
    assert await all_pages(yard, "/api/v1/jobs?state=failed&group=g") == inside[3::-1]
    assert await all_pages(yard, "/api/v1/jobs?group=g") == [inside[4], *inside[3::-1]]
    assert await all_pages(yard, "/api/v1/jobs?state=failed") == inside[3::-1]
    assert set(await all_pages(yard, "/api/v1/jobs?state=running")) == {outside, inside[4]}


async def test_one_job_is_told_with_its_attempts_and_why_it_is_where_it_is(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    ticket = yard.cluster.submit("n1", "name=nightly retries=1 sh exit 3")
    yard.cluster.finish("n1", (ticket, 1), outcome=FAILED)
    yard.cluster.advance(5)
    shown = await yard.shown(f"/api/v1/jobs/{ticket}")
    assert shown["state"] == "running"
    assert (shown["name"], shown["kind"], shown["line"]) == ("nightly", "sh", "exit 3")
    failed, present = shown["attempts"]
    assert (failed["attempt"], failed["state"], failed["reason"], failed["exit"]) == (1, "failed", "exit", 3)
    assert present == {"attempt": 2, "state": "running", "node": "n1"}
    assert shown["explanation"]["code"] == "running"
    yard.cluster.finish("n1", (ticket, 2))
    shown = await yard.shown(f"/api/v1/jobs/{ticket.upper()}")
    assert [attempt["state"] for attempt in shown["attempts"]] == ["failed", "succeeded"]
    assert "succeeded" in shown["explanation"]["text"]


async def test_what_a_job_gets_into_its_environment_is_not_shown(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    ticket = yard.cluster.submit("n1", "env.PASSWORD=hush sh true")
    assert "hush" not in (await yard.get(f"/api/v1/jobs/{ticket}")).text


async def test_the_output_is_told_of_running_and_of_ended_jobs_its_end_first_when_it_is_long(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    ticket = yard.cluster.submit("n1")
    yard.cluster.prints("n1", (ticket, 1), b"so far", b"caf\xe9")
    shown = await yard.shown(f"/api/v1/jobs/{ticket}/output")
    assert (shown["state"], shown["attempt"]) == ("running", 1)
    assert shown["stdout"] == {"text": "so far", "bytes": 6, "cut_bytes": 0}
    assert shown["stderr"]["text"] == "caf�"
    output = b"a" * OUTPUT_BYTES_DEFAULT + b"end"
    yard.cluster.finish("n1", (ticket, 1), output=output)
    shown = await yard.shown(f"/api/v1/jobs/{ticket}/output")
    assert shown["state"] == "succeeded"
    assert shown["stdout"] == {"text": output[3:].decode(), "bytes": len(output), "cut_bytes": 3}
    assert (await yard.shown(f"/api/v1/jobs/{ticket}/output?limit=3"))["stdout"]["text"] == "end"


async def test_the_end_of_a_large_output_costs_no_more_than_is_shown(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    ticket = yard.cluster.submit("n1")
    yard.cluster.finish("n1", (ticket, 1), output=b"x" * (8 * 1024 * 1024))
    tracemalloc.start()
    try:
        shown = await yard.shown(f"/api/v1/jobs/{ticket}/output?limit=10")
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert shown["stdout"] == {"text": "x" * 10, "bytes": 8 * 1024 * 1024, "cut_bytes": 8 * 1024 * 1024 - 10}
    nothing = await yard.shown(f"/api/v1/jobs/{ticket}/output?limit=0")
    assert nothing["stdout"] == {"text": "", "bytes": 8 * 1024 * 1024, "cut_bytes": 8 * 1024 * 1024}


async def test_a_job_that_only_its_origin_knows_yet_is_on_its_way(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.cluster.store_level("balancer", 0.9)
    ticket = yard.cluster.submit("n1")
    shown = await yard.shown(f"/api/v1/jobs/{ticket}")
    assert (shown["state"], shown["explanation"]["code"]) == ("queued", "on_its_way")


@pytest.mark.parametrize("path", ["", "/output"])
async def test_a_ticket_that_nobody_issued_is_not_found(tmp_path: Path, path: str) -> None:
    yard = Yard(tmp_path)
    for text in ("nope", "zzzzzz-7", "%3Cscript%3E"):
        status, code, _ = await yard.refused(f"/api/v1/jobs/{text}{path}")
        assert (status, code) == (404, "UNKNOWN_TICKET")


async def test_a_job_that_has_expired_is_gone_and_says_so(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    ticket = yard.cluster.submit("n1")
    yard.cluster.finish("n1", (ticket, 1))
    yard.cluster.advance(90_000)
    assert (await yard.refused(f"/api/v1/jobs/{ticket}"))[:2] == (410, "EXPIRED")


# --- the cluster -------------------------------------------------------------------------------------------------


async def test_the_overview_counts_jobs_slots_and_nodes(tmp_path: Path) -> None:
    yard = Yard(tmp_path, nodes=2, slots=2)
    for _ in range(6):
        yard.cluster.submit("n1")
    shown = await yard.shown("/api/v1/overview")
    assert shown["jobs"]["running"] == 4
    assert sum(shown["jobs"].values()) == 6
    assert shown["slots"] == {"busy": 4, "free": 0, "away": 0}
    assert [(node["name"], node["running"]) for node in shown["nodes"]] == [("n1", 2), ("n2", 2)]
    yard.cluster.finish_all()
    assert (await yard.shown("/api/v1/overview"))["ended_since_start"] == {"succeeded": 6, "failed": 0, "cancelled": 0}


async def test_elements_of_arrays_count_one_by_one_before_and_after_they_begin(tmp_path: Path) -> None:
    yard = Yard(tmp_path, slots=2)
    yard.cluster.submit("n1", "array=1-10%1 sh true")
    jobs = (await yard.shown("/api/v1/overview"))["jobs"]
    assert (jobs["queued"], jobs["running"]) == (9, 1)


async def test_throughput_tells_what_happened_in_which_second(tmp_path: Path) -> None:
    yard = Yard(tmp_path, slots=1)
    jobs = [yard.cluster.submit("n1") for _ in range(3)]
    yard.cluster.advance(1)
    yard.cluster.finish("n1", (jobs[0], 1))
    yard.cluster.advance(1)
    first, second = (await yard.shown("/api/v1/throughput?seconds=2"))["seconds"]
    assert (first["submitted"], first["started"], first["succeeded"]) == (3, 1, 0)
    assert (second["submitted"], second["started"], second["succeeded"]) == (0, 1, 1)
    assert second["at_wall"] == first["at_wall"] + 1


async def test_failures_are_told_the_newest_first_with_their_reasons(tmp_path: Path) -> None:
    yard = Yard(tmp_path, slots=2)
    jobs = [yard.cluster.submit("n1") for _ in range(2)]
    for ticket in jobs:
        yard.cluster.finish("n1", (ticket, 1), outcome=FAILED)
    failures = (await yard.shown("/api/v1/failures"))["failures"]
    assert [(failure["ticket"], failure["reason"]) for failure in failures] == [(t, "exit") for t in reversed(jobs)]


async def test_events_go_on_behind_a_cursor(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.cluster.submit("n1")
    first = await yard.shown("/api/v1/events")
    assert [event["seq"] for event in first["events"]] == list(range(1, len(first["events"]) + 1))
    yard.cluster.submit("n1")
    more = await yard.shown(f"/api/v1/events?since={first['cursor']}")
    assert {event["event"] for event in more["events"]} >= {"job.submitted", "job.dispatched"}
    assert more["events"][0]["seq"] == first["events"][-1]["seq"] + 1
    assert (await yard.shown("/api/v1/events?since=abcd.7"))["lost"] is True


# --- whom it refuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/api/v1/jobs?state=bad", "allowed is one of scheduled, blocked, queued"),
        ("/api/v1/jobs?limit=0", "allowed is a whole number from 1 to 1000"),
        ("/api/v1/jobs?limit=٣", "allowed is a whole number"),
        ("/api/v1/jobs?limit=1&limit=2", "is there twice"),
        ("/api/v1/jobs?color=red", "allowed are state, group, limit, cursor"),
        ("/api/v1/jobs?cursor=l0", "cursor='l0' is none; allowed is what an earlier page said"),
        ("/api/v1/jobs?group=", "allowed are 1 to 200 bytes"),
        ("/api/v1/overview?x=1", "allowed are no options"),
        ("/api/v1/events?follow=yes", "allowed is one of 1"),
        ("/api/v1/throughput?seconds=601", "from 1 to 600"),
    ],
)
async def test_a_bad_option_is_answered_with_what_is_allowed(tmp_path: Path, path: str, told: str) -> None:
    status, code, message = await Yard(tmp_path).refused(path)
    assert (status, code) == (400, "BAD_REQUEST")
    assert told in message


async def test_what_is_not_there_says_what_is(tmp_path: Path) -> None:
    status, code, message = await Yard(tmp_path).refused("/api/v2/<b>")
    assert (status, code) == (404, "NOT_FOUND")
    assert "/api/v1/jobs/{ticket}" in message


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_nothing_can_be_changed_over_http(tmp_path: Path, method: str) -> None:
    async with Yard(tmp_path).client() as client:
        response = await client.request(method, "/api/v1/jobs")
    assert response.status_code == 405
    assert "allowed are GET and HEAD" in response.json()["error"]["message"]
    assert "access-control-allow-origin" not in response.headers


async def test_head_is_answered_as_get_without_a_body(tmp_path: Path) -> None:
    async with Yard(tmp_path).client() as client:
        response = await client.head("/api/v1/nodes")
    assert (response.status_code, response.content) == (200, b"")


async def test_where_a_token_is_set_it_is_wanted_for_all_but_health(tmp_path: Path) -> None:
    yard = Yard(tmp_path, token="hush-hush")
    for path in ("/metrics", "/api/v1/jobs", "/api/v1/openapi.json", "/nope"):
        for said in ("", "Bearer", "Bearer hush-hus", "Bearer hush-hush2", "Basic hush-hush"):
            response = await yard.get(path, **({"authorization": said} if said else {}))
            assert response.status_code == 401, said
            assert response.headers["www-authenticate"] == "Bearer"
            assert "hush" not in response.text
        assert (await yard.get(path, authorization="bearer hush-hush")).status_code in (200, 404)
    assert (await yard.get("/readyz")).status_code == 200


@pytest.mark.parametrize("host", ["localhost:8081", "127.0.0.1:8081", "[::1]:8081", "10.0.0.7", "balancer:8081"])
async def test_an_address_and_a_plain_name_may_be_asked_for(tmp_path: Path, host: str) -> None:
    assert (await Yard(tmp_path).get("/metrics", host=host)).status_code == 200


@pytest.mark.parametrize("host", ["evil.example:8081", "evil.example", "127.0.0.1.nip.io", "localhost.evil.example."])
async def test_a_page_of_another_site_cannot_have_its_own_name_point_here(tmp_path: Path, host: str) -> None:
    assert (await Yard(tmp_path).refused("/api/v1/jobs", host=host))[:2] == (403, "FORBIDDEN")
    assert (await Yard(tmp_path, token="t").get("/metrics", host=host, authorization="Bearer t")).status_code == 200


async def test_no_more_requests_are_under_way_than_are_allowed(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.deaf = True
    async with trio.open_nursery() as nursery:
        for _ in range(REQUESTS_MAX):
            nursery.start_soon(yard.get, "/api/v1/overview")
        await trio.testing.wait_all_tasks_blocked()
        status, _, message = await yard.refused("/api/v1/overview")
        assert (status, message) == (503, f"{REQUESTS_MAX} requests are under way; try again later")
        assert (await yard.get("/healthz")).json()["why"] != message  # whoever looks after processes is answered
        nursery.cancel_scope.cancel()
    yard.deaf = False
    assert (await yard.get("/api/v1/overview")).status_code == 200


async def test_an_error_of_ours_ends_its_request_alone_and_tells_nothing_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard = Yard(tmp_path)
    monkeypatch.setattr(yard.tally, "last", lambda seconds: 1 / 0)
    response = await yard.get("/api/v1/throughput")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "INTERNAL")
    assert "division" not in response.text
    assert (await yard.get("/api/v1/overview")).status_code == 200


async def test_a_machine_that_does_not_answer_is_unavailable_and_not_asked_any_longer(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    yard = Yard(tmp_path)
    yard.deaf = True
    began = trio.current_time()
    status, code, message = await yard.refused("/api/v1/nodes")
    assert (status, code) == (503, "UNAVAILABLE")
    assert "/healthz" in message
    assert trio.current_time() - began == pytest.approx(WAIT_S)
    assert len(yard.asking) == 0
    assert (await yard.get("/readyz")).status_code == 503
    assert (await yard.get("/metrics")).status_code == 503


async def test_a_question_that_nobody_waits_for_any_more_is_taken_back(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    yard = Yard(tmp_path)
    with pytest.raises(TooSlow):
        await yard.asking.ask("follow", since=(await yard.shown("/api/v1/events"))["cursor"])
    assert len(yard.machine._clerk) == 0


# --- health ------------------------------------------------------------------------------------------------------


async def test_healthy_means_that_the_program_makes_progress(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    response = await yard.get("/healthz")
    assert response.status_code == 503
    assert "nothing has run" in response.json()["why"]
    write_pulse(tmp_path, 1e12, 1e12, None)
    assert (await yard.get("/healthz")).json() == {"healthy": True, "why": "makes progress"}


@pytest.mark.parametrize(("fraction", "full", "why"), [(0.8, False, "JOBYARD_STORE_MAX"), (0.1, True, "disk is full")])
async def test_ready_means_that_jobs_are_taken(tmp_path: Path, fraction: float, full: bool, why: str) -> None:
    yard = Yard(tmp_path)
    assert (await yard.get("/readyz")).json()["ready"] is True
    yard.cluster.store_level("balancer", fraction, disk_full=full)
    response = await yard.get("/readyz")
    assert response.status_code == 503
    assert why in response.json()["why"]


# --- the description ---------------------------------------------------------------------------------------------


def validator(schema: Any) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def described(path: str, response: httpx.Response) -> Any:
    """The schema of a response; it must be described."""
    media = response.headers["content-type"].partition(";")[0]
    told = DOCUMENT["paths"][path]["get"]["responses"][str(response.status_code)]
    if "$ref" in told:
        told = DOCUMENT["components"]["responses"][told["$ref"].rpartition("/")[2]]
    return told["content"][media]["schema"]


def busy_yard(directory: Path) -> tuple[Yard, list[str]]:
    """A cluster in which there is one of everything; its tickets."""
    yard = Yard(directory, nodes=2, slots=2)
    cluster: Cluster = yard.cluster
    failing = cluster.submit("n1", "name=a group=g key=k retries=1 timeout=1h sh exit 3")
    cluster.finish(*cluster.where(failing)[0], outcome=FAILED)
    ended = cluster.submit("n1", "exec true")
    cluster.finish(*cluster.where(ended)[0], output=b"out")
    failed = cluster.submit("n1", "exec false")
    cluster.finish(*cluster.where(failed)[0], outcome=FAILED)
    array = cluster.submit("n1", "array=1-9%2 sh {}")
    delayed = cluster.submit("n1", "delay=1h sh true")
    blocked = cluster.submit("n1", f"after={delayed} sh true")
    cancelled = cluster.submit("n1", "delay=1h sh true")
    cluster.say("n1", f"cancel {cancelled}")
    waiting = [cluster.submit("n1", "sh true") for _ in range(6)]
    cluster.advance(2)
    return yard, [failing, ended, failed, array, f"{array}_1", delayed, blocked, cancelled, *waiting]


async def test_every_answer_is_as_its_description_says(tmp_path: Path) -> None:
    yard, jobs = busy_yard(tmp_path)
    asked = set[str]()
    for path in DOCUMENT["paths"]:
        if path == "/api/v1/stream":
            continue
        for ticket in [*jobs, "nope"] if "{ticket}" in path else [""]:
            response = await yard.get(path.replace("{ticket}", ticket))
            asked.add(path)
            schema = described(path, response)
            if response.headers["content-type"].startswith("application/json"):
                validator(schema).validate(response.json())
    assert len(asked) == len(DOCUMENT["paths"]) - 1


async def test_every_route_is_described_and_nothing_else_is(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    paths = {route.path for route in yard.site.app._app.routes}
    assert {path for path in paths if path != "/" and not path.startswith("/page/")} == set(DOCUMENT["paths"])
    assert (await yard.shown("/api/v1/openapi.json")) == httpx.Response(200, json=DOCUMENT).json()


def test_the_description_refers_to_what_it_has() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)

    def references(value: Any) -> set[str]:
        if isinstance(value, Mapping):
            return set().union(*map(references, value.values()), {value["$ref"]} if "$ref" in value else set())
        return set().union(*map(references, value)) if isinstance(value, list | tuple) else set()

    for reference in references(DOCUMENT):
        _, _, kind, name = reference.split("/")
        assert name in DOCUMENT["components"][kind], reference


# --- streams -----------------------------------------------------------------------------------------------------


async def test_snapshots_are_made_while_somebody_follows_and_not_more_often_than_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    made: list[float] = []

    async def make() -> bytes:
        made.append(trio.current_time())
        return b"{}"

    snapshots = Snapshots(make, period_s=1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(snapshots.run)
        await trio.sleep(10)
        assert made == []
        for _ in range(2):  # who follows at the same time shares them
            nursery.start_soon(_take, snapshots, 3)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert len(made) == 3
    assert made[2] - made[0] == pytest.approx(2.0)


async def _take(snapshots: Snapshots, count: int) -> None:
    following = snapshots.follow()
    for _ in range(count):
        assert await anext(following) == b"data: {}\n\n"
    await following.aclose()


async def test_a_snapshot_that_cannot_be_made_does_not_end_the_stream(autojump_clock: trio.testing.MockClock) -> None:
    async def make() -> bytes:
        raise TooSlow("not now")

    snapshots = Snapshots(make)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(snapshots.run)
        following = snapshots.follow()
        assert await anext(following) == b": still here\n\n"
        await following.aclose()
        nursery.cancel_scope.cancel()


async def test_a_snapshot_is_as_its_description_says(tmp_path: Path) -> None:
    yard, _ = busy_yard(tmp_path)
    site: Site = yard.site
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.beside[0])
        snapshots = site.beside[0].__self__  # type: ignore[attr-defined]
        following = snapshots.follow()
        piece = await anext(following)
        await following.aclose()
        nursery.cancel_scope.cancel()
    shown = httpx.Response(200, content=piece.removeprefix(b"data: ")).json()
    validator(DOCUMENT["components"]["schemas"]["Snapshot"]).validate(shown)


async def test_who_follows_events_that_are_not_kept_any_more_is_told_of_the_gap_first(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    ticket = yard.cluster.submit("n1")
    following = Api(yard.asking, yard.tally)._follow("zzzzzz.1")  # of a balancer that has lost its directory since
    assert await anext(following) == b"event: lost\ndata: {}\n\n"
    assert ticket.encode() in await anext(following)
    await following.aclose()
