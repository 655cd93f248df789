"""A trial's stand-in: `python stand_in.py FOLDER NAME`, which does as the file FOLDER/NAME says.

Its words, one a start: `ok`, `fail` (exit code 1), `hang` (until it is killed). Each start is noted
in FOLDER/NAME.starts, with the process id, the threads and the card that it sees.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

folder, name = Path(sys.argv[1]), sys.argv[2]
starts = folder / f"{name}.starts"
before = starts.read_text().splitlines() if starts.is_file() else []
seen = [str(os.getpid()), os.environ.get("OMP_NUM_THREADS", ""),
        os.environ.get("ASCEND_RT_VISIBLE_DEVICES", "none"), f"{time.time():.3f}"]  # fmt: skip
with starts.open("a") as file:
    file.write(" ".join(seen) + "\n")
words = (folder / name).read_text().split()
word = words[min(len(before), len(words) - 1)]
print(f"{name} begins to {word}", flush=True)
if word == "hang":
    time.sleep(600)
time.sleep(0.2)
if word == "fail":
    sys.exit(f"{name} cannot go on: this was asked for.")
