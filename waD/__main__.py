"""`python -m waD` is the daemon."""

from waD.daemon import main

main(prog_name="waD")
