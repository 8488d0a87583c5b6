"""``python -m luce`` is ``luce``."""

from luce.cli import main

if __name__ == "__main__":
    main()
