"""The library behind the course: reference optimizers, problems, checks, questions, pictures.

Importing the package imports none of its parts, so each part costs only what it needs itself.
"""

__version__ = "0.1.0"
