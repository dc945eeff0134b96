"""The version of this client, in a module of its own so that nothing needs to import everything for it."""

__version__ = "0.1.0"
