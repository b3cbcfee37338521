"""Readers of public test sets that several axes share; each knows its set's layout and defects.

Every reader raises `NotMeasured` where a file is missing, truncated or malformed, in one line with the file, the place in it
and the remedy.
"""
