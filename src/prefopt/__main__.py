"""`python -m prefopt`."""

from prefopt.cli.main import main

main()
