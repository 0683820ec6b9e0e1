"""The command line: a file per command, with its options and what it does.

A command's parameters are its options, so there are as many. What a command needs beyond its options is imported when
it runs, so that `--help` is immediate.
"""
