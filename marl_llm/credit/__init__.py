"""Credit: episodes go in, advantages come out.

`table` flattens episodes into one row per turn, `stages` are small pure functions over it (on `statistics`),
`load` reads a list of stages from YAML, `recipe` runs it, `audit` shows where numbers came from.
"""
