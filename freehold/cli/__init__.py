"""The command line: the same administration as over HTTP, for people and scripts."""
