"""The `aiseg2-pipeline` command: its arguments, what it prints, and what it opens for that.

What a command does belongs in the room of its subject. Nothing imports this room.
"""
