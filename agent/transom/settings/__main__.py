"""Prints the annotated reference configuration: `python -m transom.settings > config/agent.toml`."""

import sys

from transom.settings.reference import reference

sys.stdout.write(reference())
