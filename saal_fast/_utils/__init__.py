"""Helpers that every room may use and that know no room: argument checks, random numbers, paths, progress bars."""
