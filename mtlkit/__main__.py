"""`python -m mtlkit`, for launchers that start modules."""

from mtlkit.cli import main

if __name__ == "__main__":
    main()
