"""The comparison of relays behind `bench/bore-bench`; README.md says which module does what."""
