"""Ways to and from other evaluation tools: our models inside lmms-eval, our runs in the files of other tools."""
