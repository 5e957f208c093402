"""An OpenAI-compatible chat endpoint: where it is, what travels, how fast it is asked, and the client that asks it."""
