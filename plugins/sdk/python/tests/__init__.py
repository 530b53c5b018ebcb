"""Tests of the SDK. To run them, use ``python3 -m unittest`` in the parent directory."""
