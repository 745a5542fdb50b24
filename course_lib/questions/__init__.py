"""The question bank: YAML in ``bank/``, one file an area, validated; shown in notebooks; proved by ``evidence/``.

``load()`` reads the bank, ``get(id)`` returns a question, ``show(id)`` displays it with the answer folded,
``prove(id)`` runs its evidence. Reading and showing import neither torch nor matplotlib.
"""

from course_lib.questions.loader import BankError, get, load
from course_lib.questions.proof import prove
from course_lib.questions.render import show
from course_lib.questions.schema import Question

__all__ = ["BankError", "Question", "get", "load", "prove", "show"]
