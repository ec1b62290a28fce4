"""`python -m selmatch` is the command `selmatch`."""
from selmatch.app import main

if __name__ == "__main__":
    main()
