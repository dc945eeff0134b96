"""The runtime: the only home of trio and of LMDB. What waits is here; what decides is not."""
