"""The door of the instruction data: `python -m instruct_data COMMAND`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from avqa_llm.errors import AVQAError
from instruct_data import build, downloads, exports, hedged, preference, rephrase, verify
from instruct_data.sources import commands as source_commands


def main(argv: list[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on stderr and status 2, ctrl-C is 130."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except AVQAError as error:
        print(f"instruct_data: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"instruct_data: {error.filename}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("instruct_data: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m instruct_data", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    band = commands.add_parser("bandstand", help="write a set of Bandstand clips with exact truth")
    band.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    band.add_argument("--clips", type=int, required=True, help="how many clips")
    band.add_argument("--seed", type=int, required=True, help="same seed, same bytes")
    band.add_argument("--split", default="train", help="train, val or test: disjoint (train)")
    band.add_argument("--seconds", type=float, default=10.0, help="length of a clip (10)")
    band.add_argument("--hard", type=float, default=0.0, help="share of crowded, noisy clips (0)")
    band.add_argument("--bias", type=float, default=0.0, help="0 balanced .. 1 as MUSIC-AVQA v1")
    band.add_argument("--held-out", action="store_true", help="wordings that training never sees")
    band.add_argument(
        "--of-records", action="store_true", help="questions for models that read event records"
    )
    band.add_argument(
        "--media",
        nargs="?",
        const="mp4",
        default="none",
        choices=("none", "mp4", "arrays"),
        help="write the clips too: mp4 files (when no kind is named) or arrays for training",
    )
    band.add_argument("--height", type=int, default=216, help="of the mp4 picture, 16:9 (216)")
    band.add_argument("--fps", type=float, default=20.0, help="frames a second of the mp4 (20)")
    band.add_argument("--workers", type=int, default=1, help="processes (1)")
    band.set_defaults(run=_bandstand)
    sheet = commands.add_parser("contact-sheet", help="draw the 22 instruments into a PNG")
    sheet.add_argument("out", type=Path, metavar="OUT.png")
    sheet.set_defaults(run=_contact_sheet)
    schema = commands.add_parser("schema", help="print the JSON schema of a record")
    schema.set_defaults(run=_schema)
    making = (build, preference, hedged, exports)
    for module in (source_commands, rephrase, *making, downloads, verify):
        module.add_commands(commands)
    return parser


def _bandstand(args: argparse.Namespace) -> int:
    from instruct_data.bandstand.write import SetConfig, write_set

    names = "clips seed split seconds hard bias held_out of_records media height fps".split()
    config = SetConfig(**{name: getattr(args, name) for name in names}, workers=args.workers)
    counts = write_set(args.out, config)
    print(f"{counts['clips']} clips with {counts['questions']} questions in {args.out}")
    return 0


def _schema(args: argparse.Namespace) -> int:
    import json

    from instruct_data.records import schema

    print(json.dumps(schema(), indent=2))
    return 0


def _contact_sheet(args: argparse.Namespace) -> int:
    import cv2

    from instruct_data.bandstand.picture import contact_sheet

    try:
        written = cv2.imwrite(str(args.out), contact_sheet()[..., ::-1])
    except cv2.error:  # of a suffix that it does not know
        written = False
    if not written:
        raise AVQAError(f"{args.out} cannot be written as a picture: name a .png or .jpg file")
    print(f"22 instruments in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
