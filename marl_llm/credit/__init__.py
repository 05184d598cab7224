"""Credit: episodes go in, advantages come out.

`table` flattens episodes into one row per turn, `stages` are small pure functions over it (`statistics` is their
kernel), `load` reads a list of stages from YAML, `recipe` runs it, `audit` shows where a number came from.
"""
