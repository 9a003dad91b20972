"""The live page: files for a browser, a token, and server-sent events to a few viewers."""
