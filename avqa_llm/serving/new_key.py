"""`python -m avqa_llm.serving.new_key FILE [NAME]`: make an API key and add its hash to a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from avqa_llm.serving.guards import new_key


def main(words: list[str]) -> int:
    """Print the key, which is written nowhere; the file gets its hash."""
    if not 1 <= len(words) <= 2 or words[0].startswith("-"):
        print("usage: python -m avqa_llm.serving.new_key FILE [NAME]", file=sys.stderr)
        return 2
    file, name = Path(words[0]), " ".join(words[1:])
    key, line = new_key()
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "a") as out:
            out.write(f"{line} {name}".rstrip() + "\n")
    except OSError as error:
        print(f"{file} cannot be written: {error}", file=sys.stderr)
        return 2
    print(key)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
