"""``python -m adapterkit``."""

from adapterkit.cli.main import main

if __name__ == "__main__":
    main()
