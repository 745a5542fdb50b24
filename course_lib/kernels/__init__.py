"""Production kernels and how to time them. Importing the package imports none of its parts."""
