"""Stands in for Colab's own package: what the course's notebooks may use of it, and nothing else."""
