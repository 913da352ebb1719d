"""What runs on the far side: the server that forks the runs, and the walls around each run.

Loaded by a bare interpreter that knows nothing of the rest of the package, so these modules import
one another and a handful of the standard library's modules that cost no memory.
"""
