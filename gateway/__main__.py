"""`python -m gateway` is the command `speech-gateway`."""

from __future__ import annotations

import sys

from gateway.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
