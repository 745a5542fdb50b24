"""The question bank: YAML in ``bank/``, one file an area, validated; shown in notebooks; proved by ``evidence/``.

``bank()`` is the course's own bank, read once, ``get(id)`` returns a question, ``show(id)`` displays it with the answer folded,
``prove(id)`` runs its evidence. Reading and showing import neither torch nor matplotlib.
"""

from course_lib.questions.loader import BankError, bank, get, load
from course_lib.questions.proof import prove
from course_lib.questions.render import show
from course_lib.questions.schema import Question

__all__ = ["BankError", "Question", "bank", "get", "load", "prove", "show"]
