"""Playing on from a turn, or from a token, of a finished episode: forks, trees, and what is measured with them."""
