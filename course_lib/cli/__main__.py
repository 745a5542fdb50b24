"""``python -m course_lib.cli``: the `course` command of this interpreter."""

from course_lib.cli import main

if __name__ == "__main__":
    main()
