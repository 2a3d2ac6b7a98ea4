"""`python -m wactl`."""

from wactl.main import main

if __name__ == "__main__":
    main()
