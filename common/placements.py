"""The placement policies, by the names that an operator gives; what they do is in `balancer/placement.py`. Pure."""

from typing import Final

PLACEMENTS: Final = ("level", "random", "round-robin", "least-loaded", "shortest-wait")
