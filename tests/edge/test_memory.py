"""What a process gives back once it is ready."""

import subprocess
import sys

SCRIPT = """
import numpy as np
from transom.edge import memory

def code():
    \"\"\"kB of files' code and constants that are in this process.\"\"\"
    total, counts = 0, False
    for line in open("/proc/self/smaps"):
        fields = line.split()
        if "-" in fields[0]:
            counts = fields[1] in ("r-xp", "r--p") and len(fields) > 5
        elif fields[0] == "Rss:" and counts:
            total += int(fields[1])
    return total

matrix = np.arange(9.0).reshape(3, 3) + np.eye(3)
inverse, before = np.linalg.inv(matrix), code()
memory.unmap_files()
after = code()
assert (np.linalg.inv(matrix) == inverse).all()
print(before, after)
"""


def test_code_that_only_the_start_ran_is_not_in_memory_any_more() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 2
