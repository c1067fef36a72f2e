"""`python -m worker` is `leukoflow`."""

from worker.cli import main

main()
