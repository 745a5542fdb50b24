"""Write the recorded comparison of the optimizers into the README: `python -m tools.compared`."""

import re
from pathlib import Path

from course_lib.benchmark.records import RECORDED, load
from course_lib.benchmark.summary import table

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(?<=<!-- compare -->\n).*?(?=<!-- /compare -->)", re.DOTALL)


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(BLOCK.sub(lambda _: table(load(RECORDED)) + "\n", text), encoding="utf-8")


if __name__ == "__main__":
    main()
