"""Times Lightspark's own signer over the events in a file, beside what Claviger took: `timing.py EVENTS TIMES`."""

import os
import statistics
import sys
import time
from pathlib import Path

from compare import official


def main():
    # Lightspark's library writes a line for each event.
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    times = []
    for line in Path(sys.argv[1]).read_bytes().splitlines():
        begun = time.perf_counter()
        answer = official(line)
        times.append(time.perf_counter() - begun)
        assert answer.variables.count('"signature"') == 3, answer.variables
    ours, raw = map(int, Path(sys.argv[2]).read_text().split())
    theirs = statistics.median(times) * 1e6
    print(f"{len(times)} batches of three signatures, p50: Claviger with its record {ours} us, Lightspark's signer {theirs:.0f} us, "
          f"the signatures alone {raw} us", file=report)
    print(f"Claviger / Lightspark's {ours / theirs:.2f}, Claviger / the signatures alone {ours / raw:.1f}", file=report)
    sys.exit(ours > theirs)


main()
