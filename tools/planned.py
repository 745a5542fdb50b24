"""Write the predictions into docs/past_one_machine.md: `python -m tools.planned`."""

import re
from pathlib import Path

from course_lib.parallel.plan import table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "past_one_machine.md"
BLOCK = re.compile(r"(?<=<!-- plan -->\n).*?(?=<!-- /plan -->)", re.DOTALL)


def main() -> None:
    PAGE.write_text(BLOCK.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
