"""`python -m deployctl` and the `deployctl` command."""

from __future__ import annotations

import sys


def main() -> None:
    from deployctl.cli.main import run  # noqa: PLC0415 - keeps `import deployctl` free of click
    from deployctl.output.stream import detach_broken_stdout, fill_closed_streams  # noqa: PLC0415

    fill_closed_streams()
    code = run()
    detach_broken_stdout()
    sys.exit(code)


if __name__ == "__main__":
    main()
