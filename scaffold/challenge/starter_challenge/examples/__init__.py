"""Example models; each file can be submitted as it is."""
