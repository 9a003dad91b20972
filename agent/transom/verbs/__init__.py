"""One file a verb of the command; each has `add_arguments(parser)` and `run(args) -> exit status`."""
