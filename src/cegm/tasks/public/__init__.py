"""Readers of public test sets that several axes share; each knows its set's layout and defects."""
