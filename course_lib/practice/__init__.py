"""Practising with the question bank: quizzes that come back when they are due, mock interviews, papers and flash cards.

What was answered is kept in the journal, beside the progress with the exercises.
"""
