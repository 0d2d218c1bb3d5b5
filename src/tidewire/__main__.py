"""``python -m tidewire`` is ``tidewire``."""

from tidewire.cli.main import main

if __name__ == "__main__":
    main()
