"""`python -m wanda_course.editions`."""

from .command import main

main()
