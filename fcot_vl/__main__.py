"""Run the command line with `python -m fcot_vl`."""

from fcot_vl.cli import main

if __name__ == "__main__":
    main()
