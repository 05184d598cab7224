"""Where the parts of a run are: in this process, or in many; and what waits between those who play and who learn."""
