"""Callbacks that watch a run: the tasks' gradients, and who shares what with whom; and their pictures."""
