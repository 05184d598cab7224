"""Credit: episodes go in, advantages come out.

`table` flattens episodes into one row per turn, `stages` and `rules` are small pure functions over it,
`load` reads a list of stages from YAML, `recipe` runs it, `audit` shows where numbers came from.
"""
