"""The version of this client, in a module of its own so that nothing needs to import everything for it."""

__version__ = "0.1.0"
PROTOCOL = 1  # of the client protocol, which has versions of its own
