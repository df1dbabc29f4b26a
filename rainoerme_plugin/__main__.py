"""``python -m rainoerme_plugin`` is the ``basicsr`` command."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())
