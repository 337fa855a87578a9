"""``python -m musictf`` is ``musictf``."""

from musictf.cli import main

if __name__ == "__main__":
    main()
