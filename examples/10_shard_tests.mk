# A test suite, cut into shards that run on all nodes. From your own Makefile, or in CI:
#
#   JOBYARD_URL=tcp://node1:9000 make -f 10_shard_tests.mk check PER_SHARD=5
#
# Each job gets PER_SHARD of the files; -j 8 would bound how many run at once. Lines come as shards end, each with the
# files of its shard before it. make fails if a test failed. shards.tsv tells which node took how long for which
# shard, and its fourth column helps to choose PER_SHARD. Nodes have to see this directory.

TESTS ?= $(wildcard tests/test_*.py)
PER_SHARD ?= 3

check:
	@jobyard map --max-args $(PER_SHARD) --tag --timeout 10m --joblog shards.tsv \
	    'python3 -m unittest {} 2>&1' ::: $(TESTS)

.PHONY: check
