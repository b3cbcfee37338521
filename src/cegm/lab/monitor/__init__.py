"""Watch over a roll-out without labels: has anything changed since the champion's quiet first requests, and what is to be done about it?"""
