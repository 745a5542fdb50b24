"""What there is to optimise. Importing the package imports none of its parts."""
