"""What the balancer and the nodes agree on: the words, the protocols, the limits and the runtime."""

__version__ = "0.1.0"
