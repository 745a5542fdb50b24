"""Write the table of kills into the README: `python -m tools.kills`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(?<=<!-- kills -->\n).*?(?=\n<!-- /kills -->)", re.DOTALL)


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from candidates.proof import table

    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(BLOCK.sub(lambda _: table(), text), encoding="utf-8")


if __name__ == "__main__":
    main()
