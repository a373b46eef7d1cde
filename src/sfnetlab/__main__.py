"""`python -m sfnetlab`, the same as the command."""

from sfnetlab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
