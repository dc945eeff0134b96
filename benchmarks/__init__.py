"""How fast it is, beside its peers: `make bench`. See README.md of this directory."""
