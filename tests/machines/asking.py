"""What tests ask of the replies of a cluster."""

from tests.machines.cluster import Cluster


def status(cluster: Cluster, ticket: str, name: str = "n1") -> str:
    """The reply to STATUS, without its line end."""
    reply = cluster.say(name, f"status {ticket}")
    assert reply is not None, f"{name} does not answer for {ticket}"
    return reply.rstrip("\n")


def state_of(cluster: Cluster, ticket: str, name: str = "n1") -> str:
    found = field(status(cluster, ticket, name), "state")
    assert found is not None
    return found


def field(reply: str | None, name: str) -> str | None:
    """The value of `name=` in the first line of a reply."""
    words = (reply or "").split("\n")[0].split()
    return next((word.partition("=")[2] for word in words if word.startswith(f"{name}=")), None)
