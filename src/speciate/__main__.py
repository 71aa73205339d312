"""Run `python -m speciate VERB ...`."""

from speciate.cli import main

if __name__ == "__main__":
    main()
