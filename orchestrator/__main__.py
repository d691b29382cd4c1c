"""``python -m orchestrator``: the command line, from whichever copy of the code is found first."""

from orchestrator.cli import main

main()
