"""The command `doctor`: is an engine right, how fast is it, and how does it sound?"""
