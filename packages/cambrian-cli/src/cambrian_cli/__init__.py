"""The `cambrian` command.

Modules under `commands` parse, make one library call and print; no library imports anything from here.
"""
