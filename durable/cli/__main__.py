"""`python -m durable.cli`: the same as `durable`."""

from durable.cli import main

main()
