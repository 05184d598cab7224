// All that several parts of the page share.

export const store = {
  /** The latest answer of /api/run. */
  run: null,
  /** The answer of /api/players. */
  players: null,
  /** The table where the person plays. */
  table: null,
  /** Address of the list of episodes as it was last seen. */
  list: null,
};
