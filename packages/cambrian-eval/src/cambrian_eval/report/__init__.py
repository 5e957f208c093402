"""Results for people: table rows, Markdown, and one HTML page."""
