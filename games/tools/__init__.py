"""What sub-agents use: search, a reader, a calculator, and Python in a sandbox.

What a tool returns is told to an agent as an observation: text that is never trained on.
"""
