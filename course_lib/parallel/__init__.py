"""Data parallelism and ZeRO's three stages from scratch, on real processes, beside the production engines."""
