"""Write the marker task: which of two symbols that stand far apart comes first?

    python make_marker.py DIR     writes DIR/marker.jsonl, 20,000 rows of 256 tokens

A row is {"input": [256 integers], "label": "seven" or "eight"}. All tokens are 1 but for one 7 and one 8, at least 64
positions apart; the label names the one that comes first.
"""

import json
import random
import sys
from pathlib import Path

ROWS, LENGTH, APART = 20_000, 256, 64


def make_row(draw: random.Random) -> dict[str, object]:
    tokens = [1] * LENGTH
    while True:
        first, second = sorted(draw.sample(range(LENGTH), 2))
        if second - first >= APART:
            break
    seven_first = draw.random() < 0.5
    tokens[first], tokens[second] = (7, 8) if seven_first else (8, 7)
    return {"input": tokens, "label": "seven" if seven_first else "eight"}


def main(folder: Path, rows: int = ROWS) -> None:
    draw = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "marker.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(rows):
            file.write(json.dumps(make_row(draw)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
