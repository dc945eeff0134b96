"""Takes jobs in, runs what it is given, remembers how it ended."""
