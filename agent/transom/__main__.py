"""`python -m transom` is the command `transom`."""

from transom.cli import command

command()
