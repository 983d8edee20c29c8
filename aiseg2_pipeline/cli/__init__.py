"""The `aiseg2-pipeline` command: arguments, output, and the connections that the commands open.

What a command does belongs in the package of its subject. No other package imports this one.
"""
