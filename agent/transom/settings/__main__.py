"""Prints the annotated reference configuration: `python -m transom.settings > config/agent.toml`.

With --page as a page to read: `python -m transom.settings --page > docs/settings.md`.
"""

import sys

from transom.settings.reference import page, reference

sys.stdout.write(page() if sys.argv[1:] == ["--page"] else reference())
