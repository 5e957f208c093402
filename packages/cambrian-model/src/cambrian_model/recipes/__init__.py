"""The recipes that come with the package, and what the smallest of them needs to run without a download."""
