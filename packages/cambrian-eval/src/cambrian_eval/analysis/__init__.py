"""What many scores say about benchmarks: which need no picture, which measure the same, and into what groups they fall.

This is section 3 of the Cambrian-1 paper (arXiv 2406.16860) as a library: `scores` reads a table of models by
benchmarks, `gaps` compares models with and without pictures, `correlation`, `components` and `clusters` group
benchmarks, `plots` draws, and `published` holds the paper's own numbers.
"""
