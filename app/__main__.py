"""Lets `python -m hearth` stand for `hearth`, where scripts of the environment are not on the path."""

import sys

from hearth.cli import main

sys.exit(main())
