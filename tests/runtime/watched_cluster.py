"""A cluster for tests of `top` and `doctor`: what its node says of itself and of others is for the test to set."""

import json
from dataclasses import dataclass, field

from jobyard.version import __version__
from tests.runtime.fake_cluster import FakeCluster, FakeJob
from tests.runtime.fake_node import with_body

UNAVAILABLE = b"ERR UNAVAILABLE the balancer cannot be reached; ask again later\n"


@dataclass
class WatchedCluster(FakeCluster):
    version: str = f"jobyard {__version__} protocol=1"
    token: str | None = None
    linked: bool = True
    local: dict[str, object] = field(default_factory=lambda: {"slots": 2, "draining": 0, "store_fraction": 0.01})
    stats: dict[str, object] = field(
        default_factory=lambda: {"jobs_live": 0, "slots": 4, "nodes_known": 2, "store_fraction": 0.02}
    )
    nodes: list[str] = field(
        default_factory=lambda: [
            "name=n1 state=alive slots=2 running=1 waiting=3 last_seen_s=0.2",
            "name=n2 state=alive slots=2 running=0 waiting=0 last_seen_s=0.3",
        ]
    )
    listed: list[str] = field(default_factory=list)  # lines of LIST, in place of those of `jobs`
    events: list[dict[str, object]] = field(default_factory=list)
    submitted: str = ""  # what the node's clock shows

    def fail(self, ticket: str, name: str, reason: str = "exit") -> None:
        """A job that has failed just now."""
        with self.changed:
            job = FakeJob(len(self.jobs) + 1, "sh", "false", {"name": name}, b"")
            self.jobs[ticket] = job
            self.stats["jobs_failed_total"] = int(str(self.stats.get("jobs_failed_total", 0))) + 1
            self.events.append({
                "seq": len(self.events) + 1, "at": "2026-11-21T10:00:00.000Z", "event": "job.failed",
                "ticket": ticket, "attempt": 1, "node": "n1", "reason": reason, "exit": 3, "seconds": 0.5,
            })  # fmt: skip

    # --- verbs ---------------------------------------------------------------------------------------------------

    def _on_version(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        return f"OK {self.version}\n".encode()

    def _on_auth(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        return b"OK\n" if rest == self.token else b"ERR UNAUTHORIZED that is not the token\n"

    def _on_stats(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        if "local" in options:
            return with_body("OK", _numbers({"linked": int(self.linked)} | self.local))
        return with_body("OK", _numbers(self.stats)) if self.linked else UNAVAILABLE

    def _on_nodes(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        return with_body(f"OK count={len(self.nodes)}", "".join(f"{line}\n" for line in self.nodes))

    def _on_events(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        since = len(self.events) if options["since"] == "now" else int(options["since"])
        told = "".join(f"{json.dumps(event)}\n" for event in self.events[since:])
        return with_body(f"OK count={len(self.events) - since} cursor={len(self.events)}", told)

    def _on_list(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        found = [line for line in self.listed if f"state={options.get('state', '')}" in line]
        return with_body(f"OK count={len(found)}", "".join(f"{line}\n" for line in found))

    def _on_status(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        job = self.jobs[rest]
        more = f" submitted={self.submitted}" if self.submitted else ""
        return f"OK {job.status()} name={job.options['name'].replace(' ', '%20')}{more}\n".encode()

    def _on_forget(self, options: dict[str, str], rest: str, body: bytes) -> bytes:
        del self.jobs[rest]
        return b"OK\n"


def _numbers(of: dict[str, object]) -> str:
    return "".join(f"{name} {value}\n" for name, value in of.items())
