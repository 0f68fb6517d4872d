"""A prompt to many traces to one answer: engines, solving, voting."""
