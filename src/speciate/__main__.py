"""Run `python -m speciate VERB ...`."""

import os
import sys

if __name__ == "__main__":
    if "SPECIATE_WARM_SOCKET" in os.environ:
        from speciate.warm import run_warm

        run_warm(sys.argv[1:])  # does not return if a server of the workflow has run the command
    from speciate.cli import main

    main()
