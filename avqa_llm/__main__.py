"""`python -m avqa_llm` is the `avqa` command, for environments whose scripts are not on PATH."""

from __future__ import annotations

import sys

from avqa_llm.cli import main

if __name__ == "__main__":
    sys.exit(main())
