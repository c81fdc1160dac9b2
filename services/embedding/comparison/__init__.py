"""Two pictures compared: aligned, measured, and the edits told that lead from one to the other."""
