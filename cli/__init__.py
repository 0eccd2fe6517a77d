"""The command line, one file a command.

Only what a command needs is imported, and only when it runs.
"""
