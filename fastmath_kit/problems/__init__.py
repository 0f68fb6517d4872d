"""What a problem, a trace and a right answer are. Pure: no ML library is imported here."""
