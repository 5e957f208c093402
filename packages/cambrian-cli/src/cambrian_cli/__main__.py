"""Makes ``python -m cambrian_cli`` and ``torchrun -m cambrian_cli`` the same as ``cambrian``."""

from cambrian_cli.main import run

if __name__ == "__main__":
    run()
