"""cambrian_cli."""
