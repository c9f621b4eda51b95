"""What every room may use, and what knows none of them: checks of arguments, paths, progress bars."""
