"""One module per group of commands. Heavy imports happen inside the command bodies, so that `--help` stays quick."""
