"""The language: programs as operations on sequences. Knows the engine only by the protocol in backend.py."""
