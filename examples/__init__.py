"""Things to run and to copy from: the demo, and the cluster on one machine that it and others use."""
